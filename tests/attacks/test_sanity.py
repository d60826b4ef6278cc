"""Tests of an attack: a good one passes, one that a network's masked gradient fools does not."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lightning_modules.attacks import apgd, increasing_confidence, loss_surface, noise, pgd, square, zero_gradients


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.0)])
def test_pgd_breaks_what_surely_can_be_broken(digits, loss, norm, eps):
    attack = partial(pgd, eps=eps, norm=norm, loss=loss)
    found = increasing_confidence(attack, digits.network, digits.images[:24], eps=eps, norm=norm, samples=100)
    assert found.passed and found.items >= 20


def test_attacks_that_see_no_gradient_fail_it(digits):
    images = digits.images[:12]
    masked = lambda x: (4 * digits.network(x)).round() / 4 + 0 * x.sum()  # noqa: E731
    for attack in (pgd, apgd):
        found = increasing_confidence(partial(attack, eps=0.15, steps=20), masked, images, eps=0.15)
        assert not found.passed and found.attack < 0.5
    chance = increasing_confidence(partial(noise, eps=0.15), digits.network, images, eps=0.15)
    assert not chance.passed
    asked = increasing_confidence(partial(square, eps=0.15, queries=300), masked, images, eps=0.15)
    assert asked.attack > 0.8, "queries need no gradient"


def test_zero_gradients_are_found(digits):
    assert not zero_gradients(digits.network, digits.images, digits.labels, "margin").any()
    assert zero_gradients(lambda x: digits.network(x.round()), digits.images, digits.labels).all()


def test_a_loss_surface_rises_along_the_gradient(digits):
    _, images, labels = digits.first(1)
    surface = loss_surface(digits.network, images, labels, eps=0.1, points=5)
    assert surface.shape == (5, 5)
    assert surface[4, 2] > surface[2, 2] and surface[4, 2] - surface[2, 2] > surface[2, 4] - surface[2, 2]
    torch.testing.assert_close(
        surface[2, 2], torch.nn.functional.cross_entropy(digits.network(images), labels).detach()
    )
