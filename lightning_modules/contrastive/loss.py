"""The contrastive loss, and how well sentences and images find each other.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, arXiv
2103.00020), figure 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1000  # of a matrix of similarities that is held at once


def similarities(first: Tensor, second: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """scale · first · secondᵀ, of unit vectors (N, D) and (M, D): (N, M), in float32 whatever holds outside."""
    with torch.autocast(first.device.type, enabled=False):
        return scale * first.float() @ second.float().T


def info_nce(logits: Tensor, fact: Tensor) -> Tensor:
    """The loss of each item (B,): the mean of its row's, where an image looks for its sentence, and of its column's.

    A batch may hold a fact several times; all items with an equal fact are right answers, each with the same share.

    Args:
        logits: of each image (rows) and each sentence (columns), (B, B).
        fact: what each item tells, as a number (B,): equal facts, not equal strings.
    """
    same = (fact[:, None] == fact).to(logits.dtype)
    targets = same / same.sum(1, keepdim=True)  # symmetric, so that it serves both directions
    return -(targets * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1) / 2


def recall(images: Tensor, texts: Tensor, fact: Tensor, k: int) -> tuple[float, float]:
    """Shares of images among whose k nearest sentences one tells their fact, and of sentences likewise.

    Args:
        images, texts: unit vectors of the same N items (N, D).
        fact: (N,).
    """
    found = []
    for asked, answers in ((images, texts), (texts, images)):
        hits = 0
        for start in range(0, len(asked), ROWS):
            rows = slice(start, start + ROWS)
            nearest = similarities(asked[rows], answers).topk(min(k, len(answers)), 1).indices
            hits += (fact[nearest] == fact[rows][:, None]).any(1).sum().item()
        found.append(hits / max(1, len(asked)))
    return found[0], found[1]
