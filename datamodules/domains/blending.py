"""MNIST-M's recipe: a digit's grey blended with a crop of a photograph, by the difference of the two.

Ganin & Lempitsky 2015, "Unsupervised Domain Adaptation by Backpropagation" (arXiv 1409.7495), section 4.1: of each
pixel and channel |photograph − digit|.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VERSION = 1  # of what item i is; part of the key of every cache


def blend(patch: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """|p − d| in each channel: patch uint8 (H, W, 3), digit uint8 (H, W) → uint8 (H, W, 3).

    In int16: the difference of two uint8 would wrap.
    """
    return np.abs(patch.astype(np.int16) - digit.astype(np.int16)[:, :, None]).astype(np.uint8)


def crop(photographs: Sequence[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """A patch (side, side, 3) at a random place of a random one of the photographs (height, width, 3)."""
    photograph = photographs[rng.integers(len(photographs))]
    top, left = (rng.integers(length - side + 1) for length in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def blended(
    digits: np.ndarray, numbers: Sequence[int], photographs: Sequence[np.ndarray], seed: int, split: int
) -> np.ndarray:
    """Digits (N, 1, H, H) on photographs, uint8 (N, 3, H, H).

    What becomes of a digit is a function of (seed, split, its number, the split's photographs) alone, whatever else is
    made.

    Args:
        numbers: of the digits in their data set (N,).
        photographs: those of the split, uint8 (height, width, 3) each.
        split: 0 training, 1 validation, 2 test.
    """
    made = np.empty((len(digits), 3, *digits.shape[2:]), np.uint8)
    for place, (digit, number) in enumerate(zip(digits, numbers, strict=True)):
        patch = crop(photographs, digits.shape[2], np.random.default_rng((seed, split, int(number))))
        made[place] = blend(patch, digit[0]).transpose(2, 0, 1)
    return made


def in_colour(grey: np.ndarray) -> np.ndarray:
    """Grey images (N, 1, H, W) as (N, 3, H, W) with equal channels: a view, which takes no memory."""
    return np.broadcast_to(grey, (len(grey), 3, *grey.shape[2:]))
