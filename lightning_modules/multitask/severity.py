"""How severe a mistake is: within the superclass, within the group, or across groups; and the loss weighted by it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RIGHT, WITHIN_SUPERCLASS, WITHIN_GROUP, ACROSS_GROUPS = range(4)


def severity_matrices(supers: Sequence[int], groups: Sequence[int]) -> list[Tensor]:
    """For fine classes, superclasses and groups, the severity (label, taken for) of each pair: RIGHT … ACROSS_GROUPS.

    Args:
        supers, groups: the superclass and the group of each fine class.
    """
    supers, groups = torch.tensor(supers), torch.tensor(groups)
    group_of_super = torch.zeros(int(supers.max()) + 1, dtype=torch.int64).scatter(0, supers, groups)
    fine = torch.arange(len(supers))
    levels = [(fine, supers, groups), (torch.arange(len(group_of_super)),) * 2 + (group_of_super,)]
    levels.append((torch.arange(int(groups.max()) + 1),) * 3)
    return [sum((labels[:, None] != labels).long() for labels in level) for level in levels]


def weighted_cross_entropy(logits: Tensor, labels: Tensor, severities: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy whose mean counts each image by how severe the mistake is that the network would make now.

    With ŷ the most probable class, an image counts weights[severity(y, ŷ)] times; no gradient goes through ŷ. The mean
    is divided by the sum of these weights, so that the loss keeps its scale.

    Args:
        logits: (B, classes).
        labels: integers (B,).
        severities: of this head, (classes, classes).
        weights: of RIGHT … ACROSS_GROUPS (4,); None: all alike.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    if weights is None:
        return losses.mean()
    counts = weights[severities[labels, logits.argmax(1)]]
    return (counts * losses).sum() / counts.sum()
