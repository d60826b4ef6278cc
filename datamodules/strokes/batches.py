"""Batches of drawings, as long as the longest of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.loader import Arrays
from datamodules.strokes.forms import dequantized, drop_points, to_five


class SketchBatch(NamedTuple):
    """Drawings in units of the spec's scale.

    strokes: stroke-5 S_1 … S_T, ends after the last point (B, T, 5); each has one at least.
    labels: of the classes, 0 without (B,).
    rows: the drawings' numbers in their split (B,).
    """

    strokes: Tensor
    labels: Tensor
    rows: Tensor


class PadDrawings:
    """Makes a `SketchBatch` of drawings in stroke-3, in the data's units; offsets are divided by `scale`."""

    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, arrays: Arrays, rows: np.ndarray, epoch: int) -> SketchBatch:
        drawings, labels = arrays
        length = max(map(len, drawings)) + 1
        strokes = np.stack([to_five(drawing, length) for drawing in drawings])
        strokes[..., :2] /= self.scale
        return SketchBatch(*(torch.from_numpy(part) for part in (strokes, labels.astype(np.int64), rows)))


class Jitter:
    """What drawings become each time they are trained on, by a generator that is a function of (seed, epoch, batch).

    Args:
        scale: most that each axis is stretched or shrunk by, a share.
        drop: the chance of each inner point of a stroke to be left out.
        dequantize: move each point within its unit square.
    """

    def __init__(self, scale: float, drop: float, dequantize: bool):
        self.scale, self.drop, self.dequantize = scale, drop, dequantize

    def __call__(self, arrays: Arrays, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> Arrays:
        drawings, labels = arrays
        return ragged([self.one(drawing, rng) for drawing in drawings]), labels

    def one(self, strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A drawing, changed."""
        if self.dequantize:
            strokes = dequantized(strokes, rng)
        strokes = drop_points(strokes, self.drop, rng)
        if self.scale:
            strokes = strokes * [*rng.uniform(1 - self.scale, 1 + self.scale, 2), 1]
        return strokes


def ragged(drawings: list[np.ndarray]) -> np.ndarray:
    """Drawings that differ in length as one array of objects (N,), to be indexed like others."""
    found = np.empty(len(drawings), object)
    found[:] = drawings
    return found
