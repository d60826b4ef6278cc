"""A second thing pasted into a corner at half size: no small change, so not counted among the attacks of a ball."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from datamodules.captions.facts import DIGITS
from datamodules.scenes.pixels import paint
from datamodules.scenes.records import Scenes

CORNER = 0.11  # a pasted digit's centre from both sides, in units of the image's


def distracted(data: Any, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `count` test images of one class with something of another class in a corner.

    Of scenes another scene's digit, of another colour and shape, in the corner farthest from the image's own; of
    photographs another photograph, in the corner below on the right.

    Returns:
        Images uint8 (N, C, H, W), their labels (N,) and the classes of what was pasted (N,).
    """
    labels = np.asarray(data.splits["test"].labels)
    rows = np.flatnonzero(labels >= 0)[:count]
    if scenes := getattr(data, "scenes", {}).get("test"):
        others = partners(labels[rows], lambda a, b: (a // DIGITS != b // DIGITS) & (a % DIGITS != b % DIGITS))
        chosen = Scenes(*(array[rows] for array in scenes))
        return paint(with_digit(chosen, others), data.side), labels[rows], labels[rows][others]
    others = partners(labels[rows], np.not_equal)
    images = np.array(data.splits["test"].images[rows])
    height, width = images.shape[2] // 2, images.shape[3] // 2
    small = F.interpolate(torch.from_numpy(images[others]).float(), (height, width), mode="area")
    images[:, :, -height:, -width:] = small.round().to(torch.uint8).numpy()
    return images, labels[rows], labels[rows][others]


def partners(labels: np.ndarray, differ: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """For each item (N,) the number of the next one, round and round, that differs from it; its own where none does."""
    numbers, found = np.arange(len(labels)), np.full(len(labels), -1)
    for step in range(1, len(labels)):
        other = (numbers + step) % len(labels)
        found = np.where((found < 0) & differ(labels, labels[other]), other, found)
        if (found >= 0).all():
            break
    return np.where(found < 0, numbers, found)


def with_digit(scenes: Scenes, others: np.ndarray) -> Scenes:
    """Each scene's first digit, and that of another scene, at half its size, in the farthest corner."""
    second = {name: getattr(scenes, name)[others, 0] for name in ("digit", "colour", "glyph", "angle", "stretch")}
    second["size"] = scenes.size[others, 0] / 2
    second |= {name: np.where(getattr(scenes, name)[:, 0] < 0.5, 1 - CORNER, CORNER) for name in ("x", "y")}
    both = {name: np.stack([getattr(scenes, name)[:, 0], values], 1) for name, values in second.items()}
    return scenes._replace(count=np.full_like(scenes.count, 2), **both)
