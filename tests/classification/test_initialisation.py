"""Whitening filters whiten; identities pass their inputs on."""

from __future__ import annotations

import torch
from torch import nn

from lightning_modules.classification.networks.initialisation import NOISE, identity_, whiten_


def smooth_images() -> torch.Tensor:
    """Neighbouring pixels alike, as in photographs, with a little noise."""
    coarse = torch.rand(200, 3, 3, 3)
    return nn.functional.interpolate(coarse, (12, 12), mode="bilinear") + 0.01 * torch.randn(200, 3, 12, 12)


def test_the_filters_outputs_are_uncorrelated_and_of_unit_variance_where_there_is_signal():
    convolution, norm, images = nn.Conv2d(3, 60, 3, bias=False), nn.BatchNorm2d(60), smooth_images()
    rest = convolution.weight[54:].clone()
    whiten_(convolution, norm, images)
    outputs = convolution(images).detach()[..., ::3, ::3].permute(1, 0, 2, 3).flatten(1)  # patches beside each other
    covariance = outputs[:27].cov()
    torch.testing.assert_close(covariance - covariance.diag().diag(), torch.zeros(27, 27), atol=1e-3, rtol=0)
    variances = covariance.diag()
    assert variances[0] > 0.99 and (variances.diff() < 1e-4).all(), "from the strongest direction to the weakest"
    torch.testing.assert_close(norm.weight[:27].detach() ** 2, variances, atol=1e-3, rtol=1e-2)
    assert torch.equal(convolution.weight[27:54], -convolution.weight[:27])
    assert torch.equal(convolution.weight[54:], rest) and (norm.weight[54:] == 1).all()


def test_noise_keeps_a_small_gain():
    convolution, norm = nn.Conv2d(1, 18, 3, bias=False), nn.BatchNorm2d(18)
    flat = torch.rand(100, 1, 1, 1).expand(100, 1, 6, 6) + 1e-3 * torch.randn(100, 1, 6, 6)
    whiten_(convolution, norm, flat)
    assert norm.weight[0] > 0.99 and (norm.weight[1:9] < 1.5 * (1e-6 / NOISE) ** 0.5).all()


def test_few_filters_take_the_strongest_directions():
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
    whiten_(convolution, norm, smooth_images())
    assert torch.equal(convolution.weight[2:4], -convolution.weight[:2])


def test_identities_pass_on_what_comes_in():
    convolution = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    rest = convolution.weight[3:].clone()
    identity_(convolution)
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(convolution(images)[:, :3], images)
    assert torch.equal(convolution.weight[3:], rest)
    narrow = nn.Conv2d(5, 2, 3, padding=1, bias=False)
    identity_(narrow)
    torch.testing.assert_close(narrow(torch.ones(1, 5, 3, 3)), torch.ones(1, 2, 3, 3))
