"""What the players of a translation lower.

Source: Zhu et al. 2017 (arXiv 1703.10593), equations 1 to 3 with the least squares of section 4; Hoffman et al. 2018
(arXiv 1711.03213), equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def judged_loss(real: Tensor, generated: Tensor) -> Tensor:
    """A discriminator's: ½ (E[(D(x) − 1)²] + E[D(G(y))²]), means over the map of judgements."""
    return ((real - 1).square().mean() + generated.square().mean()) / 2


def fooling_loss(generated: Tensor) -> Tensor:
    """A generator's: E[(D(G(y)) − 1)²], not halved."""
    return (generated - 1).square().mean()


def pixel_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """|made − wanted|₁ as a mean over pixels in [−1, 1]: of a cycle, or of an image that is to stay as it is."""
    return (made.float() - wanted).abs().mean()


def semantic_loss(logits: Tensor, labels: Tensor, confidence: Tensor | None = None, gate: float = 0.0) -> Tensor:
    """The labeller's cross-entropy on translated images (B, classes), 0 for those whose label is less sure than `gate`.

    Args:
        labels: (B,), of the images before translation: their own, or the labeller's.
        confidence: the labeller's probability of these labels (B,).
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    if confidence is not None:
        losses = torch.where(confidence >= gate, losses, torch.zeros_like(losses))
    return losses.mean()
