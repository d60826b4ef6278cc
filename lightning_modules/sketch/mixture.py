"""The density of the next pen stroke: a mixture of bivariate Gaussians, and three pens (Ha & Eck 2017, eqs. 3–8).

Everything is computed on a logarithmic scale and in float32, outside autocast. Correlations and deviations have soft
bounds: a hard one has no gradient to come back by.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.strokes.forms import END, LIFTED

SLANT, LOG_SIGMA = 4.0, 7.0  # the soft bounds: of ρ = tanh a, |a| < 4; of log σ, ±7
EDGE = 1e-6  # uniforms stay so far from 0 and 1


class Mixture(NamedTuple):
    """M components (…, M): log Π, means and log σ of x and y (…, M, 2), a of ρ = tanh a; logits of the pens (…, 3)."""

    log_weights: Tensor
    means: Tensor
    log_sigmas: Tensor
    slants: Tensor
    pens: Tensor


def outputs(mixtures: int) -> int:
    """How many numbers the output layer gives: 6M + 3."""
    return 6 * mixtures + 3


def as_mixture(parameters: Tensor) -> Mixture:
    """The output layer's numbers (…, 6M + 3), bounded; float32 at least."""
    parameters = parameters if parameters.dtype == torch.float64 else parameters.float()
    count = (parameters.shape[-1] - 3) // 6
    weights, means, log_sigmas, slants, pens = parameters.split([count, 2 * count, 2 * count, count, 3], -1)
    pairs = (*parameters.shape[:-1], count, 2)
    return Mixture(
        weights.log_softmax(-1),
        means.reshape(pairs),
        LOG_SIGMA * torch.tanh(log_sigmas.reshape(pairs) / LOG_SIGMA),
        SLANT * torch.tanh(slants / SLANT),
        pens,
    )


def log_densities(mixture: Mixture, offsets: Tensor) -> Tensor:
    """log Σ_j Π_j N(Δx, Δy | j) of offsets (…, 2): (…)."""
    away = (offsets[..., None, :] - mixture.means) * torch.exp(-mixture.log_sigmas)
    x, y = away.unbind(-1)
    # d_x² + d_y² − 2ρ d_x d_y over 1 − ρ², as a sum of squares: nothing cancels.
    square = (x - torch.tanh(mixture.slants) * y).square() * torch.cosh(mixture.slants).square() + y.square()
    each = -0.5 * square - mixture.log_sigmas.sum(-1) - 0.5 * log_one_minus_square(mixture.slants)
    return torch.logsumexp(mixture.log_weights + each, -1) - math.log(2 * math.pi)


def log_one_minus_square(slants: Tensor) -> Tensor:
    """log(1 − tanh² a), also where tanh a is 1 in floating point."""
    size = slants.abs()
    return 2 * (math.log(2) - size - F.softplus(-2 * size))


def log_pens(mixture: Mixture, strokes: Tensor) -> Tensor:
    """log q of the pens of strokes (…, 5): (…)."""
    return (mixture.pens.log_softmax(-1) * strokes[..., 2:]).sum(-1)


def drawn(mixture: Mixture, uniforms: Tensor, temperature: Tensor) -> Tensor:
    """A stroke (B, 5) from each mixture (B, …), a function of uniform numbers (B, 4).

    Eq. 8: Π and q are sharpened by the temperature τ (B,), and σ² multiplied by it, so σ by √τ. (Magenta's sampler
    multiplies σ by τ.)
    """
    uniforms, heat = uniforms.to(mixture.means.dtype).clamp(EDGE, 1 - EDGE), temperature[:, None]
    rows = torch.arange(len(uniforms), device=uniforms.device)
    chosen = picked(mixture.log_weights / heat, uniforms[:, 0])
    means, slants = mixture.means[rows, chosen], mixture.slants[rows, chosen]
    sigmas = mixture.log_sigmas[rows, chosen].exp() * heat.sqrt()
    x, y = torch.special.ndtri(uniforms[:, 1:3]).unbind(-1)
    y = torch.tanh(slants) * x + torch.exp(0.5 * log_one_minus_square(slants)) * y
    pens = F.one_hot(picked(mixture.pens / heat, uniforms[:, 3]), 3).to(means.dtype)
    strokes = torch.cat([means + sigmas * torch.stack([x, y], -1), pens], -1)
    return torch.where(strokes[:, 2 + END, None] > 0, ends_like(strokes), strokes)


def with_pens(strokes: Tensor, mixture: Mixture, uniforms: Tensor, temperature: Tensor) -> Tensor:
    """Strokes (B, 5), those without a pen with one: down or lifted, as each mixture has it, but not over."""
    chosen = picked(mixture.pens[:, :END] / temperature[:, None], uniforms[:, 3])
    pens = F.one_hot(chosen, 3).to(strokes)
    untold = strokes[:, 2:].sum(-1, keepdim=True) == 0
    return torch.cat([strokes[:, :2], torch.where(untold, pens, strokes[:, 2:])], -1)


def picked(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The number (B,) that a uniform number picks by the probabilities of logits (B, K)."""
    below = logits.softmax(-1).cumsum(-1) < uniforms[:, None]
    return below.sum(-1).clamp(max=logits.shape[-1] - 1)


def ends_like(strokes: Tensor) -> Tensor:
    """(0, 0, 0, 0, 1) in the place of every stroke (…, 5)."""
    ends = torch.zeros_like(strokes)
    ends[..., 2 + END] = 1
    return ends


def lifts(strokes: Tensor) -> Tensor:
    """Is the pen lifted after each stroke (…, 5)?"""
    return strokes[..., 2 + LIFTED] > 0.5
