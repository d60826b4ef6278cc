"""Scores of forecasts that are Gaussians or equal mixtures of them, all closed but the mixture's quantiles.

Letters: y the value; μ_t, σ_t² mean and variance of pass t of T, stacked first (T, …); Φ, φ of the standard normal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALVINGS = 22  # of the bracket of a quantile, which is as wide as the passes differ


def gaussian_nll(y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """½ log 2π + ½ s + ½ (y − μ)² e^−s, s = log σ²."""
    return 0.5 * (math.log(2 * math.pi) + log_variance + (y - mean).square() * (-log_variance).exp())


def mixture_nll(y: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """−log (1/T) Σ_t N(y; μ_t, σ_t²)."""
    return math.log(len(means)) - (-gaussian_nll(y, means, variances.log())).logsumexp(0)


def total_variance(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of the passes' means, divided by T (epistemic), and mean of their variances (aleatoric); the mixture's
    variance is their sum (Kendall & Gal 2017, arXiv 1703.04977)."""
    return means.var(0, correction=0), variances.mean(0)


def cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + (z * math.sqrt(0.5)).erf())


def density(z: Tensor) -> Tensor:
    return (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)


def mixture_cdf(y: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    return cdf((y - means) / variances.sqrt()).mean(0)


def mixture_quantile(p: float, means: Tensor, variances: Tensor) -> Tensor:
    """The p-quantile of an equal mixture by bisection on its distribution function.

    It lies between the least and the greatest p-quantile of the parts.
    """
    parts = means + math.sqrt(2) * torch.erfinv(torch.tensor(2 * p - 1, dtype=means.dtype)) * variances.sqrt()
    low, high = parts.amin(0), parts.amax(0)
    for _ in range(HALVINGS if len(means) > 1 else 0):
        middle = 0.5 * (low + high)
        below = mixture_cdf(middle, means, variances) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def gaussian_crps(y: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """σ (q (2Φ(q) − 1) + 2φ(q) − 1/√π), q = (y − μ)/σ (Gneiting & Raftery 2007, Section 4.2)."""
    q = (y - mean) / sigma
    return sigma * (q * (2 * cdf(q) - 1) + 2 * density(q) - 1 / math.sqrt(math.pi))


def expected_distance(m: Tensor, variance: Tensor) -> Tensor:
    """A(m, s²) = E|N(m, s²)| = 2s φ(m/s) + m (2Φ(m/s) − 1)."""
    s = variance.sqrt()
    return 2 * s * density(m / s) + m * (2 * cdf(m / s) - 1)


def mixture_crps(y: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """(1/T) Σ_t A(y − μ_t, σ_t²) − 1/(2T²) Σ_t Σ_u A(μ_t − μ_u, σ_t² + σ_u²) (Grimit et al. 2006)."""
    passes = len(means)
    pairs = expected_distance(torch.zeros_like(means), 2 * variances).sum(0)
    for apart in range(1, passes):  # each pair once, counted twice
        near, far = slice(None, -apart), slice(apart, None)
        pairs = pairs + 2 * expected_distance(means[far] - means[near], variances[far] + variances[near]).sum(0)
    return expected_distance(y - means, variances).mean(0) - pairs / (2 * passes**2)


def pinball(y: Tensor, quantile: Tensor, p: float) -> Tensor:
    """(p − 1{y < q}) (y − q); its mean over all p, twice, is the CRPS."""
    return torch.maximum(p * (y - quantile), (p - 1) * (y - quantile))
