"""Image, mask and boxes moved together: one affine map for each image of a batch, drawn first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.rectangles import canonical, share_inside

KEPT = 0.7  # of a box's area that must be inside for it to be found; with less it is difficult,
GONE = 0.1  # and with less than this it is none


class Moves(NamedTuple):
    """What is done to B images, in this order.

    mirror: bool (B,). turns: int (B,), quarter turns counter-clockwise. factor: float (B,), both ways.
    top, left: float (B,), the window's place in the scaled image, between 0 and 1 of what it can move.
    brightness: (B,), added, in levels; contrast: (B,), and colour: (B, C), factors.
    """

    mirror: np.ndarray
    turns: np.ndarray
    factor: np.ndarray
    top: np.ndarray
    left: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    colour: np.ndarray

    def part(self, rows: slice) -> Moves:
        return Moves(*(array[rows] for array in self))


class SceneAugment:
    """Draws `Moves` for a training batch and carries them out; the batch given is never written to.

    Args:
        levels: of the images.
        ignore: the mask's value outside the image, −1: 0.
        mirror: half of the images are mirrored, left to right.
        quarter_turns: each is turned by 0, 90, 180 or 270 degrees; square images only.
        scale: least and most factor by which an image is scaled, uniform; None: 1.
        crop: height and width of the window cut out of it; None: the image's own. What lies outside the image has its
            mean colour.
        brightness: most that is added to all of an image, a share of the levels.
        contrast, colour: most by which distances from its mean, and its channels, are stretched: 0.2 for 0.8 to 1.2.
    """

    def __init__(
        self,
        levels: int,
        ignore: int = -1,
        mirror: bool = False,
        quarter_turns: bool = False,
        scale: Sequence[float] | None = None,
        crop: Sequence[int] | None = None,
        brightness: float = 0.0,
        contrast: float = 0.0,
        colour: float = 0.0,
    ):
        self.levels, self.outside = levels, max(ignore, 0)
        self.mirror, self.quarter_turns = mirror, quarter_turns
        self.scale, self.crop = scale and tuple(scale), crop and tuple(crop)
        self.brightness, self.contrast, self.colour = brightness, contrast, colour

    def __call__(self, batch: SceneSplit, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> SceneSplit:
        """`rng` is a function of (seed, epoch, batch number)."""
        return self.apply(batch, self.draw(batch.images.shape, rng))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Moves:
        """For a batch of images of this shape."""
        items, channels = shape[:2]
        low, high = self.scale or (1.0, 1.0)
        return Moves(
            mirror=rng.integers(2, size=items) * self.mirror > 0,
            turns=rng.integers(4, size=items) * self.quarter_turns,
            factor=rng.uniform(low, high, items),
            top=rng.random(items),
            left=rng.random(items),
            brightness=rng.uniform(-1, 1, items) * self.brightness * (self.levels - 1),
            contrast=1 + rng.uniform(-1, 1, items) * self.contrast,
            colour=1 + rng.uniform(-1, 1, (items, channels)) * self.colour,
        )

    def apply(self, batch: SceneSplit, moves: Moves) -> SceneSplit:
        batch = turned(mirrored(batch, moves.mirror), moves.turns)
        if self.scale or self.crop:
            batch = self.windowed(batch, moves)
        if self.brightness or self.contrast or self.colour:
            batch = batch._replace(images=self.coloured(batch.images, moves))
        return batch

    def windowed(self, batch: SceneSplit, moves: Moves) -> SceneSplit:
        """Each image scaled by its factor f, then a window cut out: x → f x − left."""
        items, channels, height, width = batch.images.shape
        high, wide = self.crop or (height, width)
        images = np.empty((items, channels, high, wide), np.uint8)
        masks = None if batch.masks is None else np.full((items, high, wide), self.outside, np.uint8)
        offset = np.empty((items, 2))
        for row, (image, factor) in enumerate(zip(batch.images, moves.factor, strict=True)):
            scaled = resized(image, factor)
            found = scaled.shape[-2:]
            top = place(found[0], high, moves.top[row])
            left = place(found[1], wide, moves.left[row])
            offset[row] = left, top
            images[row] = image.mean((1, 2)).round()[:, None, None]
            paste(images[row], scaled, top, left)
            if masks is not None:
                paste(masks[row], resized(batch.masks[row], factor), top, left)
        batch = batch._replace(images=images, masks=masks)
        if batch.boxes is None:
            return batch
        return seen(moved(batch, moves.factor, offset), wide, high)

    def coloured(self, images: np.ndarray, moves: Moves) -> np.ndarray:
        values = images.astype(np.float32)
        mean = values.mean((1, 2, 3), keepdims=True)
        values = (values - mean) * moves.contrast.astype(np.float32)[:, None, None, None] + mean
        values += moves.brightness.astype(np.float32)[:, None, None, None]
        values *= moves.colour.astype(np.float32)[:, :, None, None]
        return values.round().clip(0, self.levels - 1).astype(np.uint8)


def resized(pixels: np.ndarray, factor: float) -> np.ndarray:
    """An image (C, H, W), bilinearly, or a mask (H, W), by its nearest pixels: ⌊factor · side⌋ a side.

    `scale_factor` alone keeps the map at `factor` exactly: with `size` it would be that of the rounded sides.
    """
    if factor == 1:
        return pixels
    given = torch.from_numpy(np.ascontiguousarray(pixels))
    if pixels.ndim == 2:
        options = {"mode": "nearest-exact"}
        given = given[None]
    else:
        options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    scaled = F.interpolate(given[None], scale_factor=factor, recompute_scale_factor=False, **options)[0].numpy()
    return scaled[0] if pixels.ndim == 2 else scaled


def place(size: int, window: int, share: float) -> int:
    """Where a window begins in an image of `size` pixels, or before it if it is larger."""
    room = size - window
    return int(np.floor(share * (abs(room) + 1))) * (1 if room >= 0 else -1)


def paste(target: np.ndarray, source: np.ndarray, top: int, left: int) -> None:
    """Fills target (…, H, W) with what of `source` lies in its window at (top, left), which may be negative."""
    (high, wide), (height, width) = target.shape[-2:], source.shape[-2:]
    rows, columns = slice(max(top, 0), min(top + high, height)), slice(max(left, 0), min(left + wide, width))
    into_rows = slice(rows.start - top, rows.stop - top)
    target[..., into_rows, columns.start - left : columns.stop - left] = source[..., rows, columns]


def mirrored(batch: SceneSplit, which: np.ndarray) -> SceneSplit:
    """x → W − x, θ → −θ for the images `which` (B,)."""
    if not which.any():
        return batch
    width = batch.images.shape[-1]
    found = {name: array.copy() for name, array in batch.held.items()}
    for name in {"images", "masks"} & found.keys():
        found[name][which] = found[name][which][..., ::-1]
    if "boxes" in found:
        boxes = found["boxes"][which].astype(np.float64)
        boxes[..., 0], boxes[..., 4] = width - boxes[..., 0], -boxes[..., 4]
        found["boxes"][which] = canonical(boxes)
    if "polygons" in found:
        found["polygons"][which, :, ::2] = width - found["polygons"][which, :, ::2]
    return cleared(SceneSplit(**found))


def turned(batch: SceneSplit, quarters: np.ndarray) -> SceneSplit:
    """Each image turned counter-clockwise by its number of quarters (B,), once: (x, y) → (y, W − x), θ → θ − π/2."""
    if not quarters.any():
        return batch
    width = batch.images.shape[-1]
    found = {name: array.copy() for name, array in batch.held.items()}
    for number in (1, 2, 3):
        rows = np.flatnonzero(quarters == number)
        if not len(rows):
            continue
        for name in {"images", "masks"} & found.keys():
            found[name][rows] = np.rot90(found[name][rows], number, axes=(-2, -1))
        for _ in range(number if "boxes" in found else 0):
            x, y, wide, high, angle = np.moveaxis(found["boxes"][rows].astype(np.float64), -1, 0)
            found["boxes"][rows] = canonical(np.stack([y, width - x, wide, high, angle - np.pi / 2], -1))
        for _ in range(number if "polygons" in found else 0):
            points = found["polygons"][rows].reshape(len(rows), -1, 4, 2)
            points = np.stack([points[..., 1], width - points[..., 0]], -1)
            found["polygons"][rows] = points.reshape(len(rows), -1, 8)
    return cleared(SceneSplit(**found))


def moved(batch: SceneSplit, factor: np.ndarray, offset: np.ndarray) -> SceneSplit:
    """Boxes scaled by each image's factor (B,) and shifted by minus its offset (B, 2)."""
    boxes = batch.boxes.astype(np.float64)
    boxes[..., :4] *= factor[:, None, None]
    boxes[..., :2] -= offset[:, None]
    batch = batch._replace(boxes=boxes.astype(np.float32))
    if batch.polygons is None:
        return batch
    points = batch.polygons * factor[:, None, None] - np.tile(offset, 4)[:, None]
    return batch._replace(polygons=points.astype(np.float32))


def seen(batch: SceneSplit, width: int, height: int) -> SceneSplit:
    """Boxes that are in the window, first; whole ones even where they reach beyond it, cut ones as difficult."""
    boxes = batch.boxes.astype(np.float64)
    there = np.arange(boxes.shape[1]) < batch.counts[:, None]
    share = np.where(there, share_inside(boxes, width, height), 0)
    x, y = boxes[..., 0], boxes[..., 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    whole = inside & (share >= KEPT)
    kept = there & (whole | (share >= GONE))
    order = np.argsort(~kept, axis=1, kind="stable")
    found = {"counts": kept.sum(1), "difficult": batch.difficult | ~whole}
    for name in ("boxes", "classes", "difficult", "polygons"):
        array = found.get(name, getattr(batch, name))
        if array is not None:
            places = order.reshape(*order.shape, *[1] * (array.ndim - 2))
            found[name] = np.take_along_axis(array, places, 1)
    return cleared(batch._replace(**found))


def cleared(batch: SceneSplit) -> SceneSplit:
    """With zeros, and class −1, for what lies beyond the count."""
    if batch.boxes is None:
        return batch
    beyond = np.arange(batch.boxes.shape[1]) >= batch.counts[:, None]
    found = {}
    for name, nothing in {"boxes": 0, "classes": -1, "difficult": False, "polygons": 0}.items():
        array = getattr(batch, name)
        if array is not None:
            wide = beyond.reshape(*beyond.shape, *[1] * (array.ndim - 2))
            found[name] = np.where(wide, array.dtype.type(nothing), array)
    return batch._replace(**found)
