"""The density against a library, the sampler against the density, soft bounds, temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm, spearmanr
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from lightning_modules.sketch.mixture import as_mixture, drawn, ends_like, log_densities, log_one_minus_square, outputs

COUNT = 5


@pytest.fixture
def mixture():
    return as_mixture(torch.randn(outputs(COUNT), dtype=torch.float64))


def in_library(mixture) -> MixtureSameFamily:
    sigmas, rho = mixture.log_sigmas.exp(), torch.tanh(mixture.slants)
    off = rho * sigmas.prod(-1)
    covariance = torch.stack([sigmas[..., 0] ** 2, off, off, sigmas[..., 1] ** 2], -1).unflatten(-1, (2, 2))
    return MixtureSameFamily(Categorical(logits=mixture.log_weights), MultivariateNormal(mixture.means, covariance))


def test_it_is_the_librarys_mixture(mixture):
    offsets = 3 * torch.randn(200, 2, dtype=torch.float64)
    torch.testing.assert_close(
        log_densities(mixture, offsets), in_library(mixture).log_prob(offsets), atol=1e-12, rtol=0
    )


def test_it_integrates_to_one(mixture):
    axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    wide = mixture._replace(log_sigmas=0.3 * mixture.log_sigmas.tanh(), slants=0.5 * mixture.slants)
    total = log_densities(wide, grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(total.item() - 1) < 1e-12
    assert mixture.pens.softmax(-1).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("bf16", [False, True])
def test_values_and_gradients_are_finite_at_the_ends(bf16):
    extremes = torch.tensor([50.0, -50.0, 3.9, 0.0])
    parameters = torch.zeros(4, 4, outputs(2))
    parameters[..., 6:10] = extremes[:, None, None]  # log σ
    parameters[..., 10:12] = extremes[None, :, None]  # a
    parameters.requires_grad_()
    for far in (0.0, 1.0, 1e4):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logs = log_densities(as_mixture(parameters.bfloat16() if bf16 else parameters), torch.full((2,), far))
        (gradient,) = torch.autograd.grad(logs.sum(), parameters)
        assert logs.isfinite().all() and gradient.isfinite().all() and logs.dtype == torch.float32


def test_a_slant_near_one_keeps_its_logarithm():
    a = torch.tensor([0.0, 1.0, 3.9, -2.0], dtype=torch.float64)
    expected = torch.log(1 - torch.tanh(a) ** 2)
    torch.testing.assert_close(log_one_minus_square(a), expected, atol=1e-12, rtol=1e-10)
    assert log_one_minus_square(torch.tensor(40.0)).item() == pytest.approx(2 * np.log(2) - 80)


def test_what_is_drawn_has_the_density_that_is_scored(mixture):
    """Rosenblatt's transform: F(Δx) and F(Δy | Δx) are uniform and independent; pens by χ²."""
    count = 20_000
    many = type(mixture)(*(part.expand(count, *part.shape) for part in mixture))
    generator = torch.Generator().manual_seed(3)
    uniforms = torch.rand(count, 4, dtype=torch.float64, generator=generator)
    strokes = drawn(many, uniforms, torch.ones(count, dtype=torch.float64))
    pens = strokes[:, 2:].sum(0).numpy()
    assert chisquare(pens, mixture.pens.softmax(-1).numpy() * count).pvalue > 0.01
    offsets = strokes[strokes[:, 4] == 0, :2].numpy()
    weights, sigmas = mixture.log_weights.exp().numpy(), mixture.log_sigmas.exp().numpy()
    means, rho = mixture.means.numpy(), torch.tanh(mixture.slants).numpy()
    x, y = offsets[:, :1], offsets[:, 1:]
    first = (weights * norm.cdf(x, means[:, 0], sigmas[:, 0])).sum(1)
    given = weights * norm.pdf(x, means[:, 0], sigmas[:, 0])
    middle = means[:, 1] + rho * sigmas[:, 1] * (x - means[:, 0]) / sigmas[:, 0]
    second = (given * norm.cdf(y, middle, sigmas[:, 1] * np.sqrt(1 - rho**2))).sum(1) / given.sum(1)
    assert kstest(first, "uniform").pvalue > 0.01 and kstest(second, "uniform").pvalue > 0.01
    assert abs(spearmanr(first, second).statistic) < 4 / np.sqrt(len(first))


def test_temperature_multiplies_the_variance_and_sharpens_the_choices():
    parameters = torch.zeros(outputs(1), dtype=torch.float64)
    parameters[-1] = -40  # no ends
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(20_000, 4, dtype=torch.float64, generator=generator)
    many = as_mixture(parameters.expand(len(uniforms), -1))
    heat = torch.ones(len(uniforms), dtype=torch.float64)
    warm, cool = (drawn(many, uniforms, heat * tau)[:, :2] for tau in (1.0, 0.25))
    torch.testing.assert_close(cool, 0.5 * warm)
    parameters[-3] = 1.0  # pen down: e against 1
    shares = [
        drawn(as_mixture(parameters.expand(len(uniforms), -1)), uniforms, heat * tau)[:, 2].mean().item()
        for tau in (1.0, 0.25)
    ]
    for share, odds in zip(shares, (np.e, np.e**4), strict=True):
        assert share == pytest.approx(odds / (1 + odds), abs=0.015)


def test_an_end_moves_nothing():
    parameters = torch.zeros(3, outputs(2))
    parameters[:, -1] = 50
    strokes = drawn(as_mixture(parameters), torch.rand(3, 4), torch.ones(3))
    assert torch.equal(strokes, ends_like(strokes)) and strokes[0].tolist() == [0, 0, 0, 0, 1]
