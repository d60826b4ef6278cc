"""What is trained on: words' losses, attention spread over the image, which digits and colours there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.captions.facts import DIGITS
from datamodules.scenes.records import COLOURS


def spread_penalty(weights: Tensor, there: Tensor) -> Tensor:
    """Σ_i (1 − Σ_t α_ti)² / L of each image (B,): “doubly stochastic” attention (Xu et al. 2015, section 4.2.1).

    Divided by L, as common PyTorch codes do, not as the paper. Since Σ_i Σ_t α_ti is the number of words T, which is
    less than L, it is least, (1 − T / L)², where attention is *uniform*: it pays for blur.

    Args:
        weights: α (B, T, L).
        there: which words are no padding (B, T).
    """
    return (1 - (weights * there[:, :, None]).sum(1)).square().mean(1)


def smoothed_losses(logits: Tensor, targets: Tensor, pad: int, silent: list[int], smoothing: float) -> Tensor:
    """Cross-entropies (B, T) with a target that gives `smoothing` to all words alike but the `silent` ones, which are
    never said; 0 where the target is padding."""
    log_p = F.log_softmax(logits.float(), -1)
    spoken = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    spoken[silent] = False
    of_truth = -log_p.gather(-1, targets[..., None])[..., 0]
    losses = (1 - smoothing) * of_truth - smoothing * log_p[..., spoken].mean(-1)
    return losses.masked_fill(targets == pad, 0)


def share_of_truth(step: int, k: float | None) -> float:
    """ε = k / (k + exp(i / k)), with which probability an input word is the true one at step i (Bengio et al. 2015,
    inverse sigmoid decay), as σ(ln k − i / k), which does not overflow; None: 1."""
    if k is None:
        return 1.0
    return 1 / (1 + math.exp(min(700.0, step / k - math.log(k))))


def presence_targets(facts: Tensor) -> Tensor:
    """(B, 6 + 10) of 0 and 1: which colours and which digits a scene has, from rows as `Fact.row` (B, 9)."""
    colours, digits = facts[:, 3::2], facts[:, 4::2]
    there = colours >= 0

    def marked(values: Tensor, count: int) -> Tensor:
        return (F.one_hot(values.clamp(min=0), count) * there[..., None]).amax(1)

    return torch.cat([marked(colours, len(COLOURS)), marked(digits, DIGITS)], 1).float()


class Presence(nn.Module):
    """Feature maps (B, F, H, W) → logits of which colours and digits are there (B, 16), from each feature's maximum.

    The maximum of *features*: with that of logits, or a log-sum-exp, over positions a trial did not take off.
    """

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, len(COLOURS) + DIGITS)

    def loss(self, maps: Tensor, facts: Tensor) -> Tensor:
        """Mean binary cross-entropy over the images whose facts are known; 0 without any."""
        logits = self.linear(maps.amax((2, 3)))
        losses = F.binary_cross_entropy_with_logits(logits.float(), presence_targets(facts), reduction="none").mean(1)
        known = facts[:, 0] >= 0
        return (losses * known).sum() / known.sum().clamp(min=1)
