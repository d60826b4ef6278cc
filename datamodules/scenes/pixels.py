"""Scenes painted: a muted photograph, and on it digits whose edges fade."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.scenes.records import COLOURS, Scenes
from datamodules.scenes.sources import INK, load_sources

CHUNK = 16  # scenes painted at once: their pixels stay in the processor's cache


def paint(scenes: Scenes, side: int) -> np.ndarray:
    """Images uint8 (N, 3, side, side). Each is the same alone and among others."""
    return paint_and_tell(scenes, side)[0]


def paint_and_tell(scenes: Scenes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as `paint` makes them, and which digit each pixel shows: 0 for none, else its place in the scene + 1,
    uint8 (N, side, side)."""
    images = np.empty((len(scenes.count), 3, side, side), np.uint8)
    instances = np.empty((len(images), side, side), np.uint8)
    for first in range(0, len(images), CHUNK):
        rows = slice(first, first + CHUNK)
        images[rows], instances[rows] = paint_chunk(scenes.part(rows), side)
    return images, instances


def paint_chunk(scenes: Scenes, side: int) -> tuple[np.ndarray, np.ndarray]:
    images = backgrounds(scenes, side)
    instances = np.zeros((len(images), side, side), np.uint8)
    palette = torch.tensor(COLOURS, dtype=torch.float32)[:, :, None, None]
    for place in range(scenes.digit.shape[1]):
        rows = np.flatnonzero(scenes.count > place)
        if not len(rows):
            break
        surface = surfaces(scenes, rows, place, side)
        share = opacity(surface)[:, None]
        colour = palette[torch.from_numpy(scenes.colour[rows, place])]
        images[rows] = images[rows] * (1 - share) + colour * share
        instances[rows] = np.where((surface > INK).numpy(), np.uint8(place + 1), instances[rows])
    return images.round().clamp(0, 255).to(torch.uint8).numpy(), instances


def backgrounds(scenes: Scenes, side: int) -> Tensor:
    """The photographs' crops, scaled and some mirrored: float32 (N, 3, side, side)."""
    photos = torch.from_numpy(load_sources().photos)
    found = torch.empty(len(scenes.count), 3, side, side)
    cuts = zip(scenes.photo, scenes.top, scenes.left, scenes.crop, scenes.mirrored, strict=True)
    for row, (photo, top, left, crop, mirrored) in enumerate(cuts):
        cut = photos[photo, None, :, top : top + crop, left : left + crop]
        scaled = F.interpolate(cut, (side, side), mode="bilinear", antialias=True, align_corners=False)[0]
        found[row] = scaled.flip(2) if mirrored else scaled
    return found


def surfaces(scenes: Scenes, rows: np.ndarray, place: int, side: int) -> Tensor:
    """The glyph's surface at each pixel's centre, 0 … 1, of digit `place` of the scenes `rows`: (rows, side, side).

    It is ink where it is above `INK`, and painted by its `opacity`. Read bilinearly, zero outside the glyph's square.
    """
    x, y, size, angle, stretch = (
        getattr(scenes, name)[rows, place][:, None] for name in ("x", "y", "size", "angle", "stretch")
    )
    clockwise = -np.radians(angle)
    cos, sin = np.cos(clockwise), np.sin(clockwise)
    wide, high = size / np.sqrt(stretch), size * np.sqrt(stretch)
    centres = (np.arange(side) + 0.5) / side
    across, down = centres - x, centres - y  # (rows, side): of the image's columns; of its rows
    # The glyph's coordinates, −1 … 1 over its square, are a sum of what the column and what the row gives.
    of_column = 2 * np.stack([across * cos / wide, -across * sin / high], -1)
    of_row = 2 * np.stack([down * sin / wide, down * cos / high], -1)
    grid = torch.from_numpy(of_row[:, :, None] + of_column[:, None]).float()
    glyphs = torch.from_numpy(load_sources().surfaces[scenes.glyph[rows, place]])[:, None]
    return F.grid_sample(glyphs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]


def opacity(surface: Tensor) -> Tensor:
    """How much a digit covers of what lies behind it: 0 below 0.2, 1 from 0.5 on."""
    return ((surface - 0.2) / 0.3).clamp(0, 1)
