"""Noise and turns."""

from __future__ import annotations

import torch

from lightning_modules.attacks import noise, pgd, spatial, succeeded
from lightning_modules.attacks.simple import turned


def test_a_gradient_beats_noise_and_more_noise_beats_less(digits):
    network, images, labels = digits
    one, many = (succeeded(network, noise(network, images, labels, eps=0.2, samples=n), labels).sum() for n in (1, 30))
    assert one <= many < succeeded(network, pgd(network, images, labels, eps=0.2, steps=5), labels).sum()


def test_turns_and_shifts_by_hand():
    images = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(turned(images, 0, 0, 0), images)
    right = turned(images, 0, 1, 0)
    torch.testing.assert_close(right[..., 1:], images[..., :-1])
    torch.testing.assert_close(right[..., 0], torch.zeros(2, 1, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned(images, 0, 0, -2)[:, :, :-2], images[:, :, 2:])
    torch.testing.assert_close(turned(images, 90, 0, 0), images.rot90(-1, (2, 3)), rtol=0, atol=1e-5)


def test_shifted_after_the_turn_also_in_images_that_are_not_square():
    images = torch.rand(1, 1, 6, 10)
    both, turn = turned(images, 20, 2, 1), turned(images, 20, 0, 0)
    torch.testing.assert_close(both[:, :, 1:, 2:], turn[:, :, :-1, :-2], rtol=0, atol=1e-5)


def test_the_mildest_turn_that_succeeds_is_taken(digits):
    network, images, labels = digits.first(32)
    moved = spatial(network, images, labels)
    assert succeeded(network, moved, labels).float().mean() > 0.9
    wrong = (labels + 1) % 10  # named wrongly from the start: nothing need be turned
    torch.testing.assert_close(spatial(network, images, wrong), images, rtol=0, atol=1e-5)
    one = spatial(network, images, labels, angles=1, shifts=1)
    torch.testing.assert_close(one, images, rtol=0, atol=1e-5)
