"""What scenes are made of: handwritten digits as smooth surfaces, and photographs behind them; no two splits share any.

Both ship with scikit-learn: 1,797 digits of 8×8 with values 0–16, two photographs of 427×640.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

INK = 0.35  # a glyph's ink is where its surface is above it
SURFACE_SIDE = 32
PHOTO_HEIGHT = 427
# First and last (exclusive) column of the photographs in each split, with gaps between; `unseen` is made of test's.
PHOTO_COLUMNS = {"train": (0, 384), "val": (396, 500), "test": (512, 640), "unseen": (512, 640)}
GLYPH_TENTHS = {"train": (0, 7), "val": (7, 8), "test": (8, 10), "unseen": (8, 10)}  # of each digit's glyphs


class Sources(NamedTuple):
    """All splits' material.

    surfaces: float32 (1797, 32, 32), 0 … 1, each glyph enlarged by bicubic interpolation.
    ink: float64 (1797, 4), left, top, right and bottom of each glyph's ink; −1 … 1 is the glyph's square.
    digits: int64 (1797,).
    photos: float32 (2, 3, 427, 640), half way to grey, and of 30 … 170 only, which keeps the colours of digits apart.
    """

    surfaces: np.ndarray
    ink: np.ndarray
    digits: np.ndarray
    photos: np.ndarray


@cache
def load_sources() -> Sources:
    import torch
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    glyphs = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    surfaces = torch.nn.functional.interpolate(glyphs, (SURFACE_SIDE,) * 2, mode="bicubic", align_corners=False)
    surfaces = surfaces.clamp(0, 1)[:, 0].numpy()
    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2).astype(np.float32)
    photos = 30 + 0.55 * (photos / 2 + photos.mean(1, keepdims=True) / 2)
    return Sources(surfaces, ink_extents(surfaces), digits.target.astype(np.int64), photos)


def ink_extents(surfaces: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom (N, 4) of where surfaces (N, H, H), read bilinearly, zero outside, are above `INK`.

    Exact: in each cell a bilinear surface is linear down every column, so its extremes lie on the grid's rows.
    """
    padded = np.pad(surfaces.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    lefts = [first_crossing(padded), first_crossing(padded.transpose(0, 2, 1))]
    rights = [first_crossing(padded[:, :, ::-1]), first_crossing(padded[:, ::-1].transpose(0, 2, 1))]
    texel = 2 / surfaces.shape[1]
    # Texel 1 of the padded surface has its centre half a texel inside the square's side.
    return np.stack([*((c - 0.5) * texel - 1 for c in lefts), *(1 - (c - 0.5) * texel for c in rights)], 1)


def first_crossing(padded: np.ndarray) -> np.ndarray:
    """Where rows of (N, H, W) first reach `INK`, in texels from the first one's centre: the least of each (N,)."""
    before, after = padded[..., :-1], padded[..., 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.arange(padded.shape[2] - 1) + (INK - before) / (after - before)
    return np.where((before <= INK) & (after > INK), places, np.inf).min((1, 2))


@cache
def glyphs_of(split: str, split_seed: int) -> list[np.ndarray]:
    """The numbers of a split's glyphs, of each digit: 70, 10 and 20 % by a permutation from `split_seed`."""
    digits, rng = load_sources().digits, np.random.default_rng(split_seed)
    found = []
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(digits == digit))
        first, last = (len(order) * tenths // 10 for tenths in GLYPH_TENTHS[split])
        found.append(order[first:last])
    return found
