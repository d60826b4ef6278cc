"""Square attack: its schedule, its squares, and that it asks for no gradient."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.attacks import Passes, noise, square, succeeded
from lightning_modules.attacks.squares import side, with_squares


def test_squares_shrink_as_in_the_authors_code():
    sizes = [side(number / 10_000, 0.8, 32, 32) for number in (0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert sizes == [round((0.8 / 2**halved * 1024) ** 0.5) for halved in (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert side(0, 1.0, 8, 5) == 5 and side(0.9, 0.8, 8, 8) == 1


def test_a_square_is_an_items_own_and_lies_inside():
    images = torch.full((300, 2, 6, 8), 0.5)
    drawn = torch.rand(300, 4)
    moved = with_squares(images, images, drawn, 3, 0.1)
    difference = moved - images
    there = difference != 0
    assert (there.sum((2, 3)) == 9).all(), "3 × 3 pixels in each channel"
    torch.testing.assert_close(difference[there].abs(), torch.full((300 * 18,), 0.1))
    assert there.any(0).all(), "every pixel is reached by some square"
    signs = difference.sum((2, 3)).sign()
    assert 0.4 < (signs > 0).float().mean() < 0.6 and (signs[:, 0] != signs[:, 1]).any()


def test_it_breaks_more_than_noise_without_a_gradient(digits):
    network, images, labels = digits.first(128)
    counted = Passes(network)
    broken = succeeded(network, square(counted, images, labels, eps=0.15, queries=150), labels)
    chance = succeeded(network, noise(network, images, labels, eps=0.15, samples=150), labels)
    assert broken.sum() > 2 * chance.sum()
    assert counted.backwards == 0 and counted.forwards < 150 * 128


def test_more_queries_break_more_and_a_target_can_be_aimed_at(digits):
    network, images, labels = digits.first(64)
    few, many = (succeeded(network, square(network, images, labels, eps=0.1, queries=q), labels) for q in (1, 200))
    assert many.sum() > few.sum()
    aims = network(images).topk(2).indices[:, 1]
    moved = square(network, images, labels, eps=0.3, queries=200, targets=aims)
    assert (network(moved).argmax(1) == aims).float().mean() > 0.5


def test_it_knows_one_norm(digits):
    with pytest.raises(UsageError, match="Square knows Linf, not norm=L2"):
        square(digits.network, digits.images, digits.labels, eps=0.1, norm="L2")
