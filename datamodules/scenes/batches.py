"""Images with masks, turned boxes or both: a split of them, and batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.loader import Arrays


class SceneSplit(NamedTuple):
    """N images and what is known of them. What a data set does not have is None; of M boxes those from `counts` on are
    padding, of class −1, and are told by the count alone.

    images: uint8 (N, C, H, W).
    masks: uint8 (N, H, W), each pixel's class, or the spec's `ignore`.
    boxes: float32 (N, M, 5), centre x, y (x right, y down, pixel i is [i, i + 1)), width ≥ height, all in pixels; angle
        in radians, clockwise, −π/2 ≤ θ < π/2.
    classes: int64 (N, M); difficult: bool (N, M), neither to be found nor wrong to be found.
    counts: int64 (N,).
    polygons: float32 (N, M, 8), corners x, y of what the boxes are drawn around.
    image_number: int64 (N,), the large image that this one is a tile of; offset: int64 (N, 2), its left and top there.
    """

    images: np.ndarray
    masks: np.ndarray | None = None
    boxes: np.ndarray | None = None
    classes: np.ndarray | None = None
    difficult: np.ndarray | None = None
    counts: np.ndarray | None = None
    polygons: np.ndarray | None = None
    image_number: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def held(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        return {name: array for name, array in self._asdict().items() if array is not None}

    def part(self, rows: Any) -> SceneSplit:
        return SceneSplit(**{name: array[rows] for name, array in self.held.items()})


class SceneBatch(NamedTuple):
    """What a `SceneSplit` holds of B images, as tensors: masks int64, the others of the same types."""

    images: Tensor
    masks: Tensor | None = None
    boxes: Tensor | None = None
    classes: Tensor | None = None
    difficult: Tensor | None = None
    counts: Tensor | None = None
    polygons: Tensor | None = None
    image_number: Tensor | None = None
    offset: Tensor | None = None


class AsScenes:
    """Makes a `SceneBatch` of the arrays `names` of a `SceneSplit`."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def __call__(self, arrays: Arrays, rows: np.ndarray, epoch: int) -> SceneBatch:
        held = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in zip(self.names, arrays, strict=True)}
        if "masks" in held:
            held["masks"] = held["masks"].long()
        return SceneBatch(**held)
