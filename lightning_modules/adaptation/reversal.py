"""Gradient reversal and its schedule.

Source: Ganin et al. 2016, JMLR 17(59), equations 13 to 18 and section 5.2.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Reversal(torch.autograd.Function):
    """R(x) = x, dR/dx = −λ I."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse(x: Tensor, strength: float) -> Tensor:
    """`x` itself; what flows back is multiplied by −λ = −strength. The layers after it learn at the full rate."""
    return Reversal.apply(x, strength)


def reversal_strength(part: float, gamma: float) -> float:
    """λ = 2 / (1 + exp(−γ p)) − 1: from 0, where the domain head knows nothing yet, towards 1; p goes from 0 to 1."""
    return 2 / (1 + math.exp(-gamma * part)) - 1


def domain_losses(logits: Tensor, items: int) -> Tensor:
    """L_d of each image (2B,), from the domain head's logits of `items` of the source, then as many of the target."""
    is_target = torch.arange(len(logits), device=logits.device) >= items
    return F.binary_cross_entropy_with_logits(logits, is_target.to(logits.dtype), reduction="none")


def domain_loss(losses: Tensor, items: int) -> Tensor:
    """The mean over the source plus the mean over the target, as in equation 10: not one mean over both."""
    return losses[:items].mean() + losses[items:].mean()
