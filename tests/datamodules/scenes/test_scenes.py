"""Scenes: disjoint sources, exact boxes, room between them, and pixels as their description says."""

from __future__ import annotations

import hashlib
import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from datamodules.captions.facts import CaptionLayout
from datamodules.errors import UsageError
from datamodules.scenes.pixels import paint, surfaces
from datamodules.scenes.records import COLOURS, EDGE, SPLITS, Scenes, SceneSettings, make_scenes
from datamodules.scenes.rectangles import apart, grown, ink_rectangles, outer_sides
from datamodules.scenes.sources import INK, PHOTO_COLUMNS, glyphs_of, ink_extents, load_sources

USUAL = SceneSettings((1, 3), (0.16, 0.36), 30.0, 1.0, 2.0, 0, 0)
TURNED = SceneSettings((2, 3), (0.16, 0.3), 75.0, 2.0, 1.0, 5, 1)


def scenes(count: int, split: str = "train", settings: SceneSettings = USUAL, first: int = 0) -> Scenes:
    return make_scenes(settings, CaptionLayout(), split, first, first + count)


# Sources


def test_no_glyph_and_no_column_is_in_two_splits():
    shares = {split: np.concatenate(glyphs_of(split, 0)).tolist() for split in ("train", "val", "test")}
    assert sorted(chain(*shares.values())) == list(range(1797)), "every glyph in one split"
    assert {len(own) for own in glyphs_of("train", 0)} <= set(range(121, 129))
    assert glyphs_of("unseen", 0)[3].tolist() == glyphs_of("test", 0)[3].tolist()
    assert glyphs_of("train", 1)[3].tolist() != glyphs_of("train", 0)[3].tolist()
    ends = [PHOTO_COLUMNS[split] for split in ("train", "val", "test")]
    assert all(right[0] - left[1] >= 12 for left, right in pairwise(ends))


@pytest.mark.parametrize("split", SPLITS)
def test_crops_and_glyphs_are_the_splits_own_and_every_digit_and_colour_occurs(split):
    made = scenes(500, split)
    first, last = PHOTO_COLUMNS[split]
    assert (made.left >= first).all() and (made.left + made.crop <= last).all() and (made.crop >= 64).all()
    assert (made.top >= 0).all() and (made.top + made.crop <= 427).all() and set(made.photo) == {0, 1}
    there = made.there()
    for digit in range(10):
        glyphs = set(made.glyph[there & (made.digit == digit)])
        assert glyphs and glyphs <= set(glyphs_of(split, 0)[digit])
    assert set(made.colour[there]) == set(range(len(COLOURS)))
    assert (load_sources().digits[made.glyph[there]] == made.digit[there]).all()


def cubic_weights(side: int, times: int) -> np.ndarray:
    """Keys' cubic, a = −0.75, edges repeated: what `side` values weigh in `times` as many."""
    weights = np.zeros((side * times, side))
    for row in range(side * times):
        place = (row + 0.5) / times - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            t = abs(place - near)
            value = 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[row, min(max(near, 0), side - 1)] += value
    return weights


def test_surfaces_are_the_glyphs_enlarged():
    from sklearn.datasets import load_digits

    weights, glyphs = cubic_weights(8, 4), load_digits().images[:20] / 16
    expected = np.clip(weights @ glyphs @ weights.T, 0, 1)
    np.testing.assert_allclose(load_sources().surfaces[:20], expected, atol=1e-5)


def bilinear(surface: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A surface (H, H) at glyph coordinates, −1 … 1 over its square, zero outside."""
    side = len(surface)
    padded = np.pad(surface.astype(np.float64), 1)
    column, row = (np.clip((value + 1) * side / 2 + 0.5, 0, side + 0.9999) for value in (x, y))
    c, r = column.astype(int), row.astype(int)
    right, down = column - c, row - r
    above = padded[r, c] * (1 - right) + padded[r, c + 1] * right
    below = padded[r + 1, c] * (1 - right) + padded[r + 1, c + 1] * right
    return above * (1 - down) + below * down


@pytest.mark.parametrize("glyph", [0, 1, 7, 400, 1200])
def test_the_inks_extents_are_tight(glyph):
    """Against the surface read on a fine grid: no ink outside, and ink within a step of every side."""
    fine = (np.arange(1200) + 0.5) / 600 - 1
    ink = bilinear(load_sources().surfaces[glyph], *np.meshgrid(fine, fine)) > INK
    columns, rows = fine[ink.any(0)], fine[ink.any(1)]
    found, seen = load_sources().ink[glyph], np.array([columns[0], rows[0], columns[-1], rows[-1]])
    outwards = np.array([-1, -1, 1, 1]) * (found - seen)
    assert (outwards > -1e-6).all() and (outwards < 0.012).all()


def test_ink_at_the_surfaces_edge_and_in_one_texel():
    surface = np.zeros((1, 4, 4), np.float32)
    surface[0, 0, 3] = 0.7  # above INK as far as half a texel around its centre
    np.testing.assert_allclose(ink_extents(surface), [[0.5, -1, 1, -0.5]], atol=1e-6)


# Rectangles


def corners(box: np.ndarray) -> list[complex]:
    """x + iy of a turned rectangle's corners; y runs down, so that a positive angle is clockwise."""
    x, y, width, height, angle = box
    return [
        complex(x, y) + complex(right * width / 2, down * height / 2) * np.exp(1j * angle)
        for right, down in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def area_in_common(one: np.ndarray, other: np.ndarray) -> float:
    """One's corners clipped at each of the other's sides."""
    shape, frame = corners(one), corners(other)
    for start, end in zip(frame, frame[1:] + frame[:1], strict=True):
        sides = [((end - start).conjugate() * (point - start)).imag for point in shape]
        clipped = []
        for place, (point, side) in enumerate(zip(shape, sides, strict=True)):
            before, side_before = shape[place - 1], sides[place - 1]
            if (side >= 0) != (side_before >= 0):
                clipped.append(before + (point - before) * side_before / (side_before - side))
            if side >= 0:
                clipped.append(point)
        shape = clipped
        if not shape:
            return 0.0
    return abs(sum((a.conjugate() * b).imag for a, b in zip(shape, shape[1:] + shape[:1], strict=True))) / 2


def test_rectangles_are_apart_when_they_have_no_area_in_common():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([0, 0, 0.1, 0.1, -3], [1, 1, 0.7, 0.7, 3], (600, 5))
    found = apart(boxes[::2], boxes[1::2])
    areas = np.array([area_in_common(*pair) for pair in zip(boxes[::2], boxes[1::2], strict=True)])
    np.testing.assert_array_equal(found, areas < 1e-12)
    assert 0.2 < found.mean() < 0.8, "both kinds occur"
    touching = np.array([[0, 0, 2, 2, 0], [2, 0, 2, 2, 0.0]])
    assert apart(*touching) and not apart(grown(touching[0], 0.01), touching[1])


def test_ink_rectangles_turn_counter_clockwise_and_stretch():
    ink = np.array([0.0, -0.5, 0.5, 0.5])  # in the right half of the glyph's square
    box = ink_rectangles(ink, 0.5, 0.5, 0.4, 90.0, 1.0)
    np.testing.assert_allclose(box, [0.5, 0.45, 0.1, 0.2, -np.pi / 2], atol=1e-12)  # right has become up
    np.testing.assert_allclose(outer_sides(box), [0.4, 0.4, 0.6, 0.5], atol=1e-12)
    tall = ink_rectangles(ink, 0.5, 0.5, 0.4, 0.0, 4.0)
    np.testing.assert_allclose(tall, [0.525, 0.5, 0.05, 0.4, 0], atol=1e-12)


# Scenes


def check_room(made: Scenes, settings: SceneSettings) -> None:
    boxes, there = made.rectangles(), made.there()
    sides = outer_sides(boxes)[there]
    assert (sides >= EDGE).all() and (sides <= 1 - EDGE).all()
    for row in range(len(made.count)):
        own = boxes[row, : made.count[row]]
        for place in range(len(own)):
            for other in range(place):
                assert apart(grown(own[place], settings.gap / 128), own[other])
                assert area_in_common(own[place], own[other]) <= 1e-12
    size, angle = made.size[there], made.angle[there]
    assert (size >= settings.glyph_size[0]).all() and (size <= settings.glyph_size[1]).all()
    assert (np.abs(angle) <= settings.max_angle).all() and np.abs(angle).max() > 0.9 * settings.max_angle


@pytest.mark.parametrize("settings", [USUAL, TURNED])
def test_digits_have_room(settings):
    check_room(scenes(150, settings=settings), settings)


def test_each_number_of_digits_is_as_likely():
    counts = np.bincount(scenes(900).count, minlength=4)[1:]
    assert counts.sum() == 900 and (np.abs(counts - 300) < 3 * (900 * 1 / 3 * 2 / 3) ** 0.5).all()


def test_a_scene_is_the_same_whatever_else_is_made():
    whole, other = scenes(12), scenes(5, first=3)
    for name, values in whole.part(slice(3, 8))._asdict().items():
        np.testing.assert_array_equal(values, getattr(other, name), name)
    np.testing.assert_array_equal(paint(whole, 32)[3:8], paint(other, 32))
    assert not np.array_equal(scenes(12, "val").digit, whole.digit)
    assert not np.array_equal(scenes(12, settings=TURNED).digit, whole.digit)


def test_the_scenes_are_those_of_every_other_machine():
    made = scenes(20, "unseen")
    numbers = [np.round(values, 6).astype(np.float64) + 0.0 for values in made]  # + 0.0: no −0
    digest = hashlib.sha256(b"".join(values.tobytes() for values in numbers)).hexdigest()
    assert digest[:16] == "c7a154afdc73b3d2"


def test_digits_that_cannot_fit_are_one_sentence():
    crowded = SceneSettings((3, 3), (0.6, 0.6), 30.0, 1.0, 2.0, 0, 0)
    with pytest.raises(UsageError, match=r"Scene 0 of train has no room for 3 digits.*glyph_size.*objects.*gap\.$"):
        scenes(1, settings=crowded)


# Pixels


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """(…, H, H) → (…, side, side), H ≥ side: each a mean of those near it, weights falling linearly."""
    scale = image.shape[-1] / side
    centres, places = (np.arange(side) + 0.5) * scale, np.arange(image.shape[-1]) + 0.5
    weights = np.maximum(0, 1 - np.abs(places - centres[:, None]) / max(scale, 1))
    weights /= weights.sum(1, keepdims=True)
    return weights @ image @ weights.T


def painted(made: Scenes, row: int, side: int) -> np.ndarray:
    """A scene's pixels (3, side, side) in float64, written out from the description."""
    from sklearn.datasets import load_sample_images

    top, left, crop = made.top[row], made.left[row], made.crop[row]
    photo = load_sample_images().images[made.photo[row]].transpose(2, 0, 1).astype(np.float64)
    image = resized(photo[:, top : top + crop, left : left + crop], side)
    image = image[:, :, ::-1] if made.mirrored[row] else image
    image = 30 + 0.55 * (image / 2 + image.mean(0) / 2)
    centres = (np.arange(side) + 0.5) / side
    for place in range(made.count[row]):
        x, y, size, k = (getattr(made, name)[row, place] for name in ("x", "y", "size", "stretch"))
        turn = -np.radians(made.angle[row, place])
        dx, dy = np.meshgrid(centres - x, centres - y)
        gx = 2 * (dx * np.cos(turn) + dy * np.sin(turn)) / (size / k**0.5)
        gy = 2 * (dy * np.cos(turn) - dx * np.sin(turn)) / (size * k**0.5)
        share = np.clip((bilinear(load_sources().surfaces[made.glyph[row, place]], gx, gy) - 0.2) / 0.3, 0, 1)
        image = image * (1 - share) + np.array(COLOURS[made.colour[row, place]])[:, None, None] * share
    return image


@pytest.mark.parametrize(("settings", "side"), [(USUAL, 64), (TURNED, 48)])
def test_pixels_are_what_their_description_says(settings, side):
    made = scenes(6, settings=settings)
    images = paint(made, side)
    assert images.dtype == np.uint8 and images.shape == (6, 3, side, side)
    for row in range(6):
        assert np.abs(images[row] - painted(made, row, side)).max() < 0.51


def check_masks(made: Scenes, side: int) -> None:
    """Every pixel centre of ink lies in its own rectangle and in no other; no digit is without."""
    boxes = made.rectangles()
    boxes[..., :4] *= side
    down, across = np.mgrid[:side, :side] + 0.5
    for place in range(made.digit.shape[1]):
        rows = np.flatnonzero(made.count > place)
        ink = (surfaces(made, rows, place, side) > INK).numpy()
        for row, mask in zip(rows, ink, strict=True):
            assert mask.any()
            for other in range(made.count[row]):
                x, y, width, height, angle = boxes[row, other]
                offset = (across[mask] - x + 1j * (down[mask] - y)) * np.exp(-1j * angle)
                inside = (np.abs(offset.real) <= width / 2 + 1e-4) & (np.abs(offset.imag) <= height / 2 + 1e-4)
                assert inside.all() if other == place else not inside.any()


@pytest.mark.parametrize("side", [64, 128])
def test_ink_lies_in_its_own_rectangle_alone(side):
    check_masks(scenes(40, settings=TURNED if side == 128 else USUAL), side)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [USUAL, TURNED])
def test_a_thousand_scenes(settings):
    made = scenes(1000, settings=settings)
    check_room(made, settings)
    check_masks(made, 128)


def test_painting_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    paint(scenes(2), 32)
    assert torch.equal(torch.get_rng_state(), before)
