"""Scenes as plain numbers, and how they are drawn by lot: each from a generator of its own.

A scene is a photograph's crop and a list of digits. All its numbers are in units of the image's side, so that one scene
can be painted at any side, and its boxes and masks told exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from datamodules.errors import UsageError
from datamodules.scenes.rectangles import apart, grown, ink_rectangles, outer_sides
from datamodules.scenes.sources import PHOTO_COLUMNS, PHOTO_HEIGHT, glyphs_of, load_sources

COLOURS = ((225, 40, 40), (40, 185, 60), (50, 90, 235), (240, 215, 50), (165, 60, 200), (245, 245, 245))
SPLITS = ("train", "val", "test", "unseen")  # a split's number is part of its scenes' seeds
SCENE = 0x7363656E  # ends those seeds, because numpy takes (a, 0) for (a,)
CROP = 64  # pixels, the least side of a background's crop
EDGE = 1 / 128  # of the image's side, around every digit
TRIES, RESTARTS = 40, 200  # of a digit; of the whole scene


class Scenes(NamedTuple):
    """N scenes of up to M digits. What stands after a scene's `count` of digits means nothing.

    digit (0 … 9), colour (of `COLOURS`), glyph (of `Sources`): int64 (N, M).
    x, y, size, angle, stretch: float64 (N, M), centre and side of the glyph's square, shares of the image's side, x
        right and y down; degrees counter-clockwise; the square is drawn size / √stretch wide, size · √stretch high.
    photo, top, left, crop, mirrored: int64 (N,), the photograph, the square cut out of it in its pixels, 1 if mirrored.
    """

    count: np.ndarray
    digit: np.ndarray
    colour: np.ndarray
    glyph: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    stretch: np.ndarray
    photo: np.ndarray
    top: np.ndarray
    left: np.ndarray
    crop: np.ndarray
    mirrored: np.ndarray

    def rectangles(self) -> np.ndarray:
        """Each digit's tight turned rectangle (N, M, 5), in units of the image's side."""
        ink = load_sources().ink[self.glyph]
        return ink_rectangles(ink, self.x, self.y, self.size, self.angle, self.stretch)

    def there(self) -> np.ndarray:
        """Which of the M places hold a digit: bool (N, M)."""
        return np.arange(self.digit.shape[1]) < self.count[:, None]

    def part(self, rows: slice) -> Scenes:
        return Scenes(*(array[rows] for array in self))


class Layout(Protocol):
    """What a kind of scene asks of its digits beyond room for each."""

    def pairs(self, count: int, split: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Colour and digit of each: int64 (count,) both."""

    def allows(self, count: int, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> np.ndarray:
        """May a digit stand at these places, x and y (T,), beside `others` (placed so far, 2)? bool (T,)"""


@dataclass(frozen=True)
class SceneSettings:
    """What scenes are drawn by.

    objects: least and most digits, each number as likely.
    glyph_size: least and most side of a glyph's square, shares of the image's side.
    max_angle: degrees, both ways.
    stretch: height of a square over its width.
    gap: between the ink's rectangles, in 128ths of the image's side.
    scene_seed, split_seed: of the scenes; of the division of glyphs.
    """

    objects: tuple[int, int]
    glyph_size: tuple[float, float]
    max_angle: float
    stretch: float
    gap: float
    scene_seed: int
    split_seed: int


def make_scenes(settings: SceneSettings, layout: Layout, split: str, first: int, last: int) -> Scenes:
    """Scenes `first` … `last` − 1 of a split. Scene i is the same whatever else is made.

    Raises:
        UsageError: digits of these sizes find no room.
    """
    made = [make_scene(settings, layout, split, number) for number in range(first, last)]
    return Scenes(*(np.stack(values) for values in zip(*made, strict=True)))


def make_scene(settings: SceneSettings, layout: Layout, split: str, number: int) -> Scenes:
    """Scene `number` of a split, its arrays without the first dimension: a function of scene_seed, split and number."""
    rng = np.random.default_rng((settings.scene_seed, SPLITS.index(split), number, SCENE))
    least, most = settings.objects
    count = int(rng.integers(least, most + 1))
    background = draw_background(split, rng)
    colours, digits = layout.pairs(count, split, rng)
    known = glyphs_of(split, settings.split_seed)
    glyphs = np.array([own[rng.integers(len(own))] for own in (known[digit] for digit in digits)])
    places = place(settings, layout, glyphs, rng)
    if places is None:
        raise UsageError(
            f"Scene {number} of {split} has no room for {count} digits after {RESTARTS} attempts: choose a smaller "
            "data.glyph_size, fewer data.objects or a smaller data.gap."
        )
    parts = (padded(values, most) for values in (digits, colours, glyphs, *places.T))
    return Scenes(np.int64(count), *parts, np.full(most, float(settings.stretch)), *background)


def draw_background(split: str, rng: np.random.Generator) -> tuple[np.int64, ...]:
    """photo, top, left, crop and mirrored of a scene."""
    start, end = PHOTO_COLUMNS[split]
    photo, mirrored = rng.integers(2, size=2)
    crop = rng.integers(CROP, min(end - start, PHOTO_HEIGHT) + 1)
    top, left = rng.integers(PHOTO_HEIGHT - crop + 1), start + rng.integers(end - start - crop + 1)
    return photo, top, left, crop, mirrored


def padded(values: np.ndarray, size: int) -> np.ndarray:
    """With zeros after them."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])


def place(settings: SceneSettings, layout: Layout, glyphs: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """x, y, size and angle of each glyph (count, 4); None where `RESTARTS` attempts fail.

    Places are uniform among those where the digit fits beside those before it; where none of `TRIES` does, all begin
    again, which favours small digits in full scenes.
    """
    inks = load_sources().ink[glyphs]
    for _ in range(RESTARTS):
        places, boxes = np.empty((0, 4)), np.empty((0, 5))
        for ink in inks:
            tried = draw_places(settings, rng)
            own = ink_rectangles(ink, *tried.T, settings.stretch)
            sides = outer_sides(own)
            fits = (sides >= EDGE).all(1) & (sides <= 1 - EDGE).all(1)
            fits &= layout.allows(len(inks), tried[:, 0], tried[:, 1], places[:, :2])
            fits &= apart(grown(own, settings.gap / 128)[:, None], boxes).all(1)
            if not fits.any():
                break
            chosen = fits.argmax()
            places, boxes = np.vstack([places, tried[chosen]]), np.vstack([boxes, own[chosen]])
        else:
            return places
    return None


def draw_places(settings: SceneSettings, rng: np.random.Generator) -> np.ndarray:
    """x, y, size and angle of `TRIES` places, uniform: (TRIES, 4)."""
    least = np.array([0, 0, settings.glyph_size[0], -settings.max_angle])
    most = np.array([1, 1, settings.glyph_size[1], settings.max_angle])
    return least + (most - least) * rng.random((TRIES, 4))
