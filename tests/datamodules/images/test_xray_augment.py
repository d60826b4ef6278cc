"""X-rays as they might have been taken otherwise: within bounds, never mirrored unasked, and said where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.images.covid_xray import CovidXray
from datamodules.images.pneumonia_mnist import PneumoniaMNIST
from datamodules.images.shared.xray_augment import XrayAugment, altered, moved

SIDE = 101


def dot(row: int, column: int) -> torch.Tensor:
    """An image with a bright square of 3×3 pixels."""
    x = torch.zeros(1, 1, SIDE, SIDE)
    x[..., row - 1 : row + 2, column - 1 : column + 2] = 1
    return x


def place(x: torch.Tensor) -> np.ndarray:
    """The brightness's centre, rows and columns from the middle."""
    at = torch.arange(SIDE) - SIDE // 2.0
    return np.array([float((x.sum((0, 1, 3)) * at).sum() / x.sum()), float((x.sum((0, 1, 2)) * at).sum() / x.sum())])


@pytest.mark.parametrize(
    ("angle", "size", "shift", "expected"),
    [
        (0.0, 1.0, (0.0, 0.0), (0, 30)),
        (0.1, 1.0, (0.0, 0.0), (-30 * np.sin(0.1), 30 * np.cos(0.1))),
        (0.0, 1.05, (0.0, 0.0), (0, 31.5)),
        (0.0, 1.0, (0.1, 0.0), (0, 30 - 0.05 * SIDE)),
    ],
)
def test_a_dot_comes_where_the_change_puts_it(angle, size, shift, expected):
    found = moved(dot(SIDE // 2, SIDE // 2 + 30), np.array([angle]), np.array([size]), np.array([shift]))
    np.testing.assert_allclose(place(found), expected, atol=0.15)


def test_changes_stay_within_their_bounds_and_are_drawn_anew_for_each_image():
    images = np.full((64, 1, 20, 20), 100, np.uint8)
    found = altered(images, np.random.default_rng(0))
    means = found.mean((1, 2, 3))
    assert found.dtype == np.uint8 and found.shape == images.shape and (images == 100).all()
    assert 74 <= means.min() < 85 and 115 < means.max() <= 126 and found.std((1, 2, 3)).max() < 6
    np.testing.assert_array_equal(found, altered(images, np.random.default_rng(0)))


def test_the_heart_stays_on_its_side_unless_mirrored_and_a_note_says_so():
    images = np.zeros((200, 1, 20, 20), np.uint8)
    images[..., 14:18] = 200  # on the right of the picture
    right = lambda found: found[..., 10:].mean((1, 2, 3)) > found[..., :10].mean((1, 2, 3))  # noqa: E731
    rng = np.random.default_rng
    assert right(XrayAugment("xray", False)(images, rng(0))).all()
    assert 0.35 < right(XrayAugment("none", True)(images, rng(0))).mean() < 0.65
    assert XrayAugment("none", False)(images, rng(0)) is images
    for make in (PneumoniaMNIST, CovidXray):
        assert "heart" in make("", "", mirror=True).note and "heart" not in make("", "", augment="xray").note
        with pytest.raises(UsageError, match="did you mean 'xray'"):
            make("", "", augment="xrays")
