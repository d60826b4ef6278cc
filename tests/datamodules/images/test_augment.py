"""Flips and crops of a batch, against the same done image by image."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.errors import UsageError
from datamodules.images.shared.augment import FlipAndCrop, cropped, mirrored
from datamodules.loader import BatchLoader

RNG = np.random.default_rng


@pytest.fixture
def images() -> np.ndarray:
    return RNG(1).integers(0, 256, (7, 3, 6, 9), np.uint8)


@pytest.mark.parametrize("padding", [1, 2, 5])
def test_crops_are_windows_of_the_reflected_image(images, padding):
    down, right = RNG(2).integers(0, 2 * padding + 1, (2, 7))
    found = cropped(images, padding, down, right)
    for number, image in enumerate(images):
        padded = np.stack([np.pad(plane, padding, mode="reflect") for plane in image])
        window = padded[:, down[number] : down[number] + 6, right[number] : right[number] + 9]
        np.testing.assert_array_equal(found[number], window)


def test_the_middle_crop_is_the_image(images):
    np.testing.assert_array_equal(cropped(images, 2, *np.full((2, 7), 2)), images)


def test_mirrors_only_those_named(images):
    which = np.array([True, False, True, False, False, False, True])
    found = mirrored(images, which)
    for image, mirror, result in zip(images, which, found, strict=True):
        np.testing.assert_array_equal(result, image[..., ::-1] if mirror else image)


def flipped(augment: FlipAndCrop, images: np.ndarray, rows: np.ndarray, epoch: int) -> np.ndarray:
    """Which images came back mirrored; none is its own mirror image."""
    found = augment(images, RNG((epoch, 1)), rows, epoch)
    mirrors = np.array([np.array_equal(a, b[..., ::-1]) for a, b in zip(found, images, strict=True)])
    assert all(mirror or np.array_equal(a, b) for mirror, a, b in zip(mirrors, found, images, strict=True))
    return mirrors


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    images, rows = RNG(3).integers(0, 256, (200, 1, 4, 4), np.uint8), RNG(4).permutation(200)
    augment = FlipAndCrop("alternating", 0, seed=5)
    epochs = [flipped(augment, images, rows, epoch) for epoch in range(4)]
    assert 60 < epochs[0].sum() < 140
    assert all(np.array_equal(epochs[n], epochs[0] ^ bool(n % 2)) for n in range(4))
    assert not np.array_equal(flipped(FlipAndCrop("alternating", 0, seed=6), images, rows, 0), epochs[0])


def test_an_images_alternating_flip_does_not_depend_on_its_batch():
    images, rows = RNG(3).integers(0, 256, (50, 1, 4, 4), np.uint8), np.arange(50)
    augment = FlipAndCrop("alternating", 0, seed=5)
    whole, part = flipped(augment, images, rows, 0), flipped(augment, images[10:20], rows[10:20], 0)
    np.testing.assert_array_equal(whole[10:20], part)


def test_random_flips_are_drawn_anew_every_epoch():
    images, rows = RNG(3).integers(0, 256, (200, 1, 4, 4), np.uint8), np.arange(200)
    first, second = (flipped(FlipAndCrop("random", 0, 0), images, rows, epoch) for epoch in (0, 1))
    assert 60 < first.sum() < 140 and 60 < (first ^ second).sum() < 140


def test_all_offsets_occur_and_the_originals_stay(images):
    many, rows = np.repeat(images[:1], 400, 0), np.arange(400)
    before = many.copy()
    found = FlipAndCrop("random", 1, 0)(many, RNG(0), rows, 0)
    assert len(np.unique(found.reshape(400, -1), axis=0)) == 18  # 3 × 3 places, both ways
    np.testing.assert_array_equal(many, before)
    assert found.shape == many.shape and found.dtype == np.uint8


def test_a_loader_gives_the_same_augmented_batches_again_and_others_next_epoch():
    images, labels = RNG(3).integers(0, 256, (10, 3, 8, 8), np.uint8), np.arange(10)
    loader = BatchLoader(images, labels, 4, seed=1, augment=FlipAndCrop("alternating", 2, 1))
    first, again = ([batch.numpy() for batch, _ in loader] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    loader.sampler.set_epoch(1)
    assert not np.array_equal(next(iter(loader))[0].numpy(), first[0])


def test_nothing_is_done_by_default(images):
    assert FlipAndCrop("none", 0, 0)(images, RNG(0), np.arange(7), 3) is images


@pytest.mark.parametrize(
    ("flip", "padding", "message"),
    [("up", 0, "data.flip is 'up'"), ("none", -1, "crop_padding is -1"), ("none", 1.5, "crop_padding is 1.5")],
)
def test_impossible_settings_are_one_sentence(flip, padding, message):
    with pytest.raises(UsageError, match=message):
        FlipAndCrop(flip, padding, 0)


def test_a_padding_wider_than_the_image_is_one_sentence(images):
    with pytest.raises(UsageError, match="images of 6×9 allow at most 5"):
        FlipAndCrop("none", 6, 0)(images, RNG(0), np.arange(7), 0)
