"""Bounds of log p(x): the evidence lower bound, and the tighter one of many samples. All in nats per image."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_modules.anomaly.likelihoods import Likelihood
from lightning_modules.anomaly.vae import draw

ROWS = 4096  # decoded at once: K samples of several images


class Decoder(Protocol):
    def decode(self, z: Tensor) -> Tensor: ...


def kl_per_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) ‖ N(0, 1)) of each latent, ½(μ² + σ² − 1 − log σ²), (B, latent) (Kingma & Welling, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def log_normal(z: Tensor, mean: Tensor | float = 0.0, log_variance: Tensor | float = 0.0) -> Tensor:
    """log N(z; μ, σ²), summed over the last dimension."""
    log_variance = torch.as_tensor(log_variance, dtype=z.dtype, device=z.device)
    square = (z - mean).square() / log_variance.exp()
    return -0.5 * (square + log_variance + math.log(2 * math.pi)).sum(-1)


class Bounds(NamedTuple):
    """Of each image (B,): E_q[log p(x|z)] − KL by K samples and the exact KL, and the bound of K samples, float64."""

    elbo: Tensor
    iwae: Tensor


@torch.no_grad()
def bounds(
    decoder: Decoder, likelihood: Likelihood, x: Tensor, mean: Tensor, log_variance: Tensor, samples: int,
    generator: torch.Generator | None = None,
) -> Bounds:  # fmt: skip
    """ELBO and IWAE, log 1/K Σ_k p(x, z_k) / q(z_k | x) (Burda et al. 2016, arXiv 1509.00519, equation 8).

    β has no part in them, whatever a network was trained with: they bound log p(x).

    Args:
        decoder: decodes z (B, latent).
        x: images from 0 to 1 (B, C, H, W).
        mean, log_variance: of q(z | x) (B, latent).
        samples: K.
        generator: of the samples.
    """
    elbos, iwaes = [], []
    size = max(1, ROWS // samples)
    for part, own_mean, own_log in zip(x.split(size), mean.split(size), log_variance.split(size), strict=True):
        means, logs = (value.repeat_interleave(samples, 0) for value in (own_mean, own_log))
        z = draw(means, logs, generator)
        log_likelihood = likelihood.log_prob(part.repeat_interleave(samples, 0), decoder.decode(z)).double()
        log_weights = log_likelihood + (log_normal(z) - log_normal(z, means, logs)).double()
        elbos.append(log_likelihood.view(-1, samples).mean(1) - kl_per_latent(own_mean, own_log).double().sum(1))
        iwaes.append(log_weights.view(-1, samples).logsumexp(1) - math.log(samples))
    return Bounds(torch.cat(elbos), torch.cat(iwaes))
