"""CW's distances against the shortest way out of linear networks, which is known."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.attacks import cw, succeeded
from lightning_modules.attacks.balls import lengths
from lightning_modules.attacks.losses import margin
from tests.attacks.networks import linear


def shortest_in_the_box(images, lead, towards):
    """‖clip(x + λ·towards) − x‖ where the lead (N,) is used up: λ by bisection."""
    low, high = torch.zeros(len(images), 1).double(), torch.full((len(images), 1), 1e4).double()
    for _ in range(100):
        middle = (low + high) / 2
        moved = (images + middle * towards).clamp(0, 1) - images
        short = ((moved * towards).sum(1) < lead)[:, None]
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return moved.norm(dim=1)


def away_from_boundaries(classes: int, count: int):
    """A linear network, its weights, and images in [0.4, 0.6] that lead by far more than one step of Adam changes."""
    network, weights, noise, _ = linear(classes)
    labels = torch.arange(count) % classes
    images = 0.5 + 0.05 * weights[labels].sign().view_as(noise[:count]) + 0.05 * (2 * noise[:count] - 1)
    assert torch.equal(network(images).argmax(1), labels)
    return network, weights, images, labels


@pytest.mark.parametrize("early_stop", [True, False])
def test_two_classes_inside_the_box(early_stop):
    network, weights, images, labels = away_from_boundaries(2, 30)
    best = -margin(network(images), labels).detach() / (weights[0] - weights[1]).norm()
    moved = cw(network, images, labels, steps=300, early_stop=early_stop)
    ratio = lengths(moved - images) / best
    assert succeeded(network, moved, labels).all()
    assert ratio.max() < 1.01 and ratio.min() > 1 - 1e-4


def test_ten_classes_by_the_nearest_target():
    network, weights, images, labels = away_from_boundaries(10, 10)
    leads = network(images).detach()
    leads = leads.gather(1, labels[:, None]) - leads
    ways = leads / (weights[labels][:, None] - weights).norm(dim=2)
    best = ways.scatter(1, labels[:, None], torch.inf).amin(1)
    images, labels, aims = images.repeat_interleave(10, 0), labels.repeat_interleave(10), torch.arange(10).repeat(10)
    moved = cw(network, images, labels, targets=aims, steps=200)
    won = succeeded(network, moved, labels, aims) & (labels != aims)
    found = torch.where(won, lengths(moved - images), torch.inf).view(10, 10).amin(1)
    assert (found / best).max() < 1.01 and (found / best).min() > 1 - 1e-4


def test_black_and_white_pixels_where_the_box_binds():
    network, weights, images, labels = linear(2)
    images = images[:20].round()
    labels = network(images).argmax(1)
    lead = -margin(network(images), labels).detach()
    towards = torch.where(labels[:, None] == 0, weights[1] - weights[0], weights[0] - weights[1])
    best = shortest_in_the_box(images.flatten(1), lead, towards)
    ratio = lengths(cw(network, images, labels) - images) / best
    assert ratio.max() < 1.01 and ratio.min() > 1 - 1e-4


def test_it_breaks_everything_and_by_the_confidence_when_the_distance_is_free(digits):
    network, images, labels = digits.first(24)
    images = images.clamp(0.05, 0.95)  # black pixels take hundreds of steps to leave the end of tanh
    labels = network(images).argmax(1)
    plain, sure = (cw(network, images, labels, confidence=k, steps=80) for k in (0.0, 3.0))
    assert succeeded(network, plain, labels).all() and lengths(plain - images).median() < 1
    assert margin(network(sure), labels).min() >= 3 - 1e-5
    assert (lengths(sure - images) > lengths(plain - images)).all()


def test_what_is_not_found_comes_back_as_the_original(digits):
    images, labels = digits.images[:4], digits.labels[:4]
    fixed = torch.nn.functional.one_hot(labels, 10).float() * 100
    moved = cw(lambda x: fixed + 0 * x.sum(), images, labels, steps=10, searches=2)
    assert torch.equal(moved, images)


@pytest.mark.parametrize("options", [{"confidence": -1}, {"steps": 0}, {"searches": 0}, {"lr": 0}, {"first_c": -1}])
def test_impossible_attacks_are_refused(digits, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} is"):
        cw(digits.network, digits.images, digits.labels, **options)
