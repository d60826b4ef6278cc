"""Images that are moved, scaled and lit."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.captions.moved import Moved
from datamodules.errors import UsageError


def test_a_dot_moves_as_drawn_and_no_farther():
    images = np.zeros((200, 3, 64, 64), np.uint8)
    images[:, :, 38:42, 8:12] = 250  # its middle at (10, 40), from the image's (−22, 8)
    found = Moved(shift=3.0, scale=0.1)(images, np.random.default_rng(0))
    assert found.shape == images.shape and found.dtype == np.uint8
    mass = found[:, 0].astype(float)
    across = (mass.sum(1) * (np.arange(64) + 0.5)).sum(1) / mass.sum((1, 2)) - 32
    down = (mass.sum(2) * (np.arange(64) + 0.5)).sum(1) / mass.sum((1, 2)) - 32
    assert -22 * 1.1 - 3.2 < across.min() < -22 * 1.04 and -22 * 0.96 < across.max() < -22 * 0.9 + 3.2
    assert 8 * 0.9 - 3.2 < down.min() < 8 * 0.9 and 8 * 1.1 < down.max() < 8 * 1.1 + 3.2
    assert (Moved()(images, np.random.default_rng(0)) == images).all()


def test_light_stays_within_its_share():
    images = np.full((50, 1, 8, 8), 100, np.uint8)
    means = Moved(light=0.2)(images, np.random.default_rng(0)).mean((1, 2, 3))
    assert 100 - 51.5 < means.min() < 80 and 120 < means.max() < 100 + 51.5


def test_an_impossible_number_is_refused():
    with pytest.raises(UsageError, match=r"data\.scale is 0\.7, but it must be a number from 0 to 0\.5"):
        Moved(scale=0.7).checked()
