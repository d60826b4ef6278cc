"""L_R and L_KL of Ha & Eck 2017, eqs. 9–11, of each drawing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.strokes.forms import END
from lightning_modules.sketch.mixture import as_mixture, ends_like, log_densities, log_pens

FLOOR = 1e-6  # what magenta adds to a density before its logarithm


class Nats(NamedTuple):
    """Of each drawing (B,): nats of its offsets, the same with magenta's floor, and of its pens."""

    offsets: Tensor
    floored: Tensor
    pens: Tensor


def reconstruction(parameters: Tensor, strokes: Tensor, every_pen: bool) -> Nats:
    """−Σ_{i≤N_s} log density of the offsets, and −Σ log q of the pens.

    Args:
        parameters: of the densities (B, T, 6M + 3).
        strokes: (B, T, 5).
        every_pen: pens of all T steps, eq. 9's literal sum; else up to the first end: there a drawing is over.
    """
    with torch.autocast(parameters.device.type, enabled=False):
        mixture = as_mixture(parameters)
        ends = strokes[..., 2 + END]
        logs, points = log_densities(mixture, strokes[..., :2]), 1 - ends
        pens = log_pens(mixture, strokes)
        if not every_pen:
            pens = pens * (ends.cumsum(1) <= 1)
        floored = torch.log(logs.detach().exp() + FLOOR)
        return Nats(-(logs * points).sum(1), -(floored * points).sum(1), -pens.sum(1))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """L_KL = −(1 / 2N_z) Σ (1 + σ̂ − μ² − exp σ̂) of each drawing (B,), eq. 10."""
    mean, log_variance = mean.float(), log_variance.float()
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean(-1)


def annealed(step: int, start: float, rate: float) -> float:
    """η = 1 − (1 − start)·rate^step, of the paper's appendix."""
    return 1 - (1 - start) * rate**step


def padded_to(strokes: Tensor, length: int) -> Tensor:
    """The batch with ends up to `length` rows."""
    missing = length - strokes.shape[1]
    return torch.cat([strokes, ends_like(strokes.new_zeros(len(strokes), missing, 5))], 1) if missing > 0 else strokes
