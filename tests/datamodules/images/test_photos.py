"""Patches of the two embedded photographs: fixed, and no pixel in two splits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets

from datamodules.errors import UsageError
from datamodules.images.photos import GRID, TILES, Photos

HEIGHT, WIDTH = 427, 640


def test_the_patches():
    data = Photos(batch_size=7)
    data.prepare_data()
    assert data.spec.shape == (3, 32, 32) and (data.spec.levels, data.spec.classes) == (256, 0)
    assert data.class_names == [] and "photographs" in data.note
    assert {name: len(split.images) for name, split in data.splits.items()} == {"train": 2000, "val": 200, "test": 300}
    for images, labels in data.splits.values():
        assert images.shape[1:] == data.spec.shape and images.dtype == np.uint8 and not labels.any()
        assert images.min() < 5 and images.max() > 250 and images.flags.c_contiguous
        assert np.corrcoef(images[..., :-1].ravel(), images[..., 1:].ravel())[0, 1] > 0.9, "neighbours look alike"
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (7, 3, 32, 32) and labels.shape == (7,)


def test_the_splits_do_not_depend_on_the_seed():
    first, second = Photos(seed=0), Photos(seed=1)
    first.prepare_data()
    second.prepare_data()
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.images, second.splits[name].images)


@pytest.mark.parametrize("size", [1, 32, 142])
def test_no_pixel_is_in_two_splits(monkeypatch, size):
    """Photographs whose every pixel holds its own number, in three bytes."""
    numbers = np.arange(2 * HEIGHT * WIDTH).reshape(2, HEIGHT, WIDTH)
    photos = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)
    monkeypatch.setattr(datasets, "load_sample_images", lambda: SimpleNamespace(images=list(photos)))
    data = Photos(size=size, train_items=300, val_items=100, test_items=100)
    data.prepare_data()
    seen = {}
    for name, (images, _) in data.splits.items():
        pixels = np.einsum("bchw,c->bhw", images.astype(np.int64), [65536, 256, 1])
        corner = pixels[:, :1, :1]
        down, across = np.mgrid[:size, :size]
        np.testing.assert_array_equal(pixels, corner + WIDTH * down + across, "a patch is a piece of a photograph")
        seen[name] = set(pixels.ravel().tolist())
    assert not seen["train"] & seen["val"] and not seen["train"] & seen["test"] and not seen["val"] & seen["test"]
    assert sum(TILES.values()) == 2 * GRID[0] * GRID[1]


@pytest.mark.parametrize(
    "options", [{"size": 143}, {"size": 0}, {"size": [8, 8]}, {"val_items": 0}, {"test_items": 1.5}]
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(UsageError, match=rf"data\.{next(iter(options))} is .*whole number from 1 to \d+\.$"):
        Photos(**options)
