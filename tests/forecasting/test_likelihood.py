"""Scores against libraries, integrals and draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Categorical, MixtureSameFamily, Normal

from lightning_modules.forecasting.likelihood import (
    gaussian_crps,
    gaussian_nll,
    mixture_cdf,
    mixture_crps,
    mixture_nll,
    mixture_quantile,
    pinball,
    total_variance,
)


def passes(count: int = 5, values: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    y, means = torch.randn(values, dtype=torch.float64), torch.randn(count, values, dtype=torch.float64)
    return y, means, torch.rand(count, values, dtype=torch.float64) + 0.1


def test_densities_are_the_librarys():
    y, means, variances = passes()
    torch.testing.assert_close(
        gaussian_nll(y, means[0], variances[0].log()), -Normal(means[0], variances[0].sqrt()).log_prob(y)
    )
    parts = Normal(means.T, variances.T.sqrt())
    mixture = MixtureSameFamily(Categorical(torch.ones_like(means.T)), parts)
    torch.testing.assert_close(mixture_nll(y, means, variances), -mixture.log_prob(y))
    torch.testing.assert_close(mixture_cdf(y, means, variances), mixture.cdf(y))
    mean_of_passes = torch.stack([gaussian_nll(y, *part) for part in zip(means, variances.log(), strict=True)]).mean(0)
    assert (mixture_nll(y, means, variances) <= mean_of_passes).all(), "Jensen"


def test_total_variance_is_that_of_draws():
    _, means, variances = passes()
    epistemic, aleatoric = total_variance(means, variances)
    torch.testing.assert_close(epistemic, means.var(0, unbiased=False))
    draws = 1_000_000
    part = torch.randint(len(means), (draws,))
    drawn = means[part] + variances[part].sqrt() * torch.randn(draws, means.shape[1], dtype=torch.float64)
    fourth = ((drawn - drawn.mean(0)) ** 4).mean(0)
    error = ((fourth - drawn.var(0) ** 2) / draws).sqrt()
    assert ((drawn.var(0) - epistemic - aleatoric).abs() < 4 * error).all()


def as_tensor(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def integral(y: float, cdf) -> float:
    """∫ (F(x) − 1{x ≥ y})² dx."""
    below = quad(lambda x: cdf(x) ** 2, -20, y, epsabs=1e-11, limit=200)[0]
    return below + quad(lambda x: (1 - cdf(x)) ** 2, y, 20, epsabs=1e-11, limit=200)[0]


def test_crps_is_its_integral():
    y, means, variances = passes(values=3)
    gaussian, mixture = gaussian_crps(y, means[0], variances[0].sqrt()), mixture_crps(y, means, variances)
    for place in range(3):
        for found, rows in ((gaussian, slice(0, 1)), (mixture, slice(None))):
            parts = means[rows, place], variances[rows, place]
            expected = integral(y[place].item(), lambda x, parts=parts: mixture_cdf(as_tensor(x), *parts).item())
            assert found[place].item() == pytest.approx(expected, abs=1e-8)
    torch.testing.assert_close(mixture_crps(y, means[:1], variances[:1]), gaussian)


def test_crps_of_a_point_is_the_absolute_error():
    y, means, _ = passes()
    point = gaussian_crps(y, means[0], torch.full_like(y, 1e-9))
    torch.testing.assert_close(point, (y - means[0]).abs(), rtol=0, atol=1e-8)


def test_quantiles_invert_the_distribution_and_their_pinball_loss_is_half_the_crps():
    y, means, variances = passes()
    for p in (0.01, 0.25, 0.5, 0.975):
        q = mixture_quantile(p, means, variances)
        torch.testing.assert_close(mixture_cdf(q, means, variances), torch.full_like(q, p), rtol=0, atol=1e-6)
    levels = (np.arange(4000) + 0.5) / 4000
    losses = [pinball(y, mixture_quantile(p, means, variances), p) for p in levels]
    torch.testing.assert_close(2 * torch.stack(losses).mean(0), mixture_crps(y, means, variances), rtol=0, atol=1e-5)
