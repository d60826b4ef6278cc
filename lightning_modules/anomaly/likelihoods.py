"""What the decoder's outputs say of an image: log p(x | z), summed over its sub-pixels, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean

SMALLEST, LARGEST = 1e-4, 10.0  # of σ, where pixels lie between 0 and 1
FIRST = 0.1  # a learned σ begins here


class Likelihood(nn.Module):
    """Pixels x are from 0 to 1 (B, C, H, W); outputs are the decoder's, of the same shape."""

    discrete = False  # are these probabilities of the levels, and so comparable in bits per dimension?

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x | z) (B,)."""
        raise NotImplementedError

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected picture, between 0 and 1."""
        raise NotImplementedError


class Bernoulli(Likelihood):
    """Each pixel is 1 with the probability sigmoid(output). Grey is read as a probability: then this is no likelihood
    of grey images, and it has the images' own entropy in it, which no reconstruction can lower."""

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(outputs, x, reduction="none").flatten(1).sum(1)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()


class Scaled(Likelihood):
    """A distribution around the outputs, with one σ for all pixels: given, or learned.

    Args:
        sigma: above 0; None: learned, which makes β superfluous (Rybkin et al. 2021, arXiv 2006.13202).
    """

    def __init__(self, sigma: float | None = None):
        super().__init__()
        log_sigma = torch.tensor(math.log(FIRST if sigma is None else sigma))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=sigma is None)

    @property
    def sigma(self) -> Tensor:
        return self.log_sigma.exp().clamp(SMALLEST, LARGEST)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.clamp(0, 1)


class Gaussian(Scaled):
    """A normal density around each output; its constant, D/2 · log 2πσ², stays in."""

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        squares = ((x - outputs) / self.sigma).square().flatten(1)
        return -0.5 * squares.sum(1) - squares.shape[1] * (self.sigma.log() + 0.5 * math.log(2 * math.pi))


class Discretised(Scaled):
    """The mass that a logistic distribution of scale σ around each output gives the pixel's level; the first and the
    last level have all that lies beyond them (Salimans et al. 2017, arXiv 1701.05517, equation 2).

    Args:
        levels: of the pixels, 0, 1/(levels−1) … 1.
        sigma: see `Scaled`.
    """

    discrete = True

    def __init__(self, levels: int, sigma: float | None = None):
        super().__init__(sigma)
        self.levels = levels

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        half = 0.5 / (self.levels - 1)
        above, below = (x - outputs + half) / self.sigma, (x - outputs - half) / self.sigma
        # S(a) − S(b) = S(a) · S(−b) · (1 − e^(b−a)) for the sigmoid S: no difference of two numbers near 1.
        log_mass = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(-2 * half / self.sigma))
        log_mass = torch.where(x < half, F.logsigmoid(above), log_mass)
        log_mass = torch.where(x > 1 - half, F.logsigmoid(-below), log_mass)
        return log_mass.flatten(1).sum(1)


KINDS = ("bernoulli", "gaussian", "discretised")


def make_likelihood(kind: str, levels: int, sigma: float | str = "auto") -> Likelihood:
    """The likelihood that `task.module.likelihood` names.

    Args:
        sigma: a number; `learned`; `auto`: learned where the likelihood has one.

    Raises:
        UsageError: there is no such likelihood, or not with this sigma.
    """
    if kind not in KINDS:
        raise UsageError(
            f"task.module.likelihood is {kind!r}{did_you_mean(str(kind), KINDS)}: choose one of {', '.join(KINDS)}."
        )
    if kind == "bernoulli":
        if sigma != "auto":
            raise UsageError(
                f"task.module.sigma is {sigma!r}, but task.module.likelihood=bernoulli has no sigma: leave it auto, or "
                "choose gaussian or discretised."
            )
        return Bernoulli()
    if sigma in ("auto", "learned"):
        sigma = None
    elif isinstance(sigma, (bool, str)) or not isinstance(sigma, (int, float)) or not SMALLEST <= sigma <= LARGEST:
        raise UsageError(
            f"task.module.sigma is {sigma!r}, but it must be a number from {SMALLEST:g} to {LARGEST:g}, or learned."
        )
    return Gaussian(sigma) if kind == "gaussian" else Discretised(levels, sigma)
