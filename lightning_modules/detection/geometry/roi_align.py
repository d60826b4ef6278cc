"""Rotated RoIAlign: features read under a rotated grid (Oriented R-CNN, Eq. 5–7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def roi_align_rotated(
    features: Tensor,
    boxes: Tensor,
    images: Tensor | None = None,
    *,
    stride: float = 1,
    size: int = 7,
    sampling: int = 2,
) -> Tensor:
    """What a map shows inside each box, turned upright: (K, C, size, size).

    A bin is the mean of `sampling`² samples, each bilinear between pixel centres; one that lies beyond −1 or beyond the
    map's width (height) in its pixels is 0, others are clamped to the map, as `torchvision.ops.roi_align(aligned=True)`
    does, which this equals at θ = 0. Gradients flow to the features and to the boxes.

    Args:
        features: (B, C, H, W).
        boxes: (K, 5), in pixels of the image.
        images: the place of each box's image in the batch (K,); None: the first's.
        stride: the image's pixels to one of the map's.
        size: bins each way.
        sampling: samples in a bin each way.
    """
    images = boxes.new_zeros(len(boxes), dtype=torch.int64) if images is None else images
    levels = torch.zeros_like(images)
    return pyramid_align([features], boxes, images, levels, [stride], size, sampling)


def pyramid_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    strides: Sequence[float],
    size: int = 7,
    sampling: int = 2,
) -> Tensor:
    """`roi_align_rotated` of boxes that each read one of several maps, all in one sum over looked-up pixels.

    Args:
        maps: each (B, C, H, W).
        levels: which map each box reads (K,).
        strides: of the maps.
    """
    table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in maps])  # (pixels of all maps, C)
    rows = [level.shape[0] * level.shape[2] * level.shape[3] for level in maps]
    starts, heights, widths, own = (
        torch.tensor(numbers, device=boxes.device)[levels]
        for numbers in (
            [sum(rows[:place]) for place in range(len(rows))],
            [level.shape[2] for level in maps],
            [level.shape[3] for level in maps],
            [float(stride) for stride in strides],
        )
    )
    x, y = sample_points(boxes, own.to(boxes.dtype), size * sampling)  # each (K, S, S)
    top, bottom, share_y, inside_y = bracket(y, heights)
    left, right, share_x, inside_x = bracket(x, widths)
    first = (starts + images * heights * widths)[:, None, None]
    width = widths[:, None, None]
    inside = (inside_y & inside_x).to(boxes.dtype) / sampling**2
    places, weights = [], []
    for row, weight_y in ((top, 1 - share_y), (bottom, share_y)):
        for column, weight_x in ((left, 1 - share_x), (right, share_x)):
            places.append(first + row * width + column)
            weights.append(weight_y * weight_x * inside)
    by_bin = [
        torch.stack(parts, -1).unflatten(2, (size, sampling)).unflatten(1, (size, sampling)).transpose(2, 3).flatten(3)
        for parts in (places, weights)
    ]  # (K, size, size, 4 · sampling²)
    found = F.embedding_bag(
        by_bin[0].flatten(0, 2), table, mode="sum", per_sample_weights=by_bin[1].flatten(0, 2).to(table.dtype)
    )
    return found.view(len(boxes), size, size, table.shape[1]).permute(0, 3, 1, 2)


def sample_points(boxes: Tensor, strides: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Where each box (K, 5) is read, in its map's pixels, 0 the first one's centre: x and y (K, samples, samples)."""
    steps = (torch.arange(samples, device=boxes.device, dtype=boxes.dtype) + 0.5) / samples - 0.5
    cx, cy, w, h, angle = (part[:, None, None] for part in boxes.unbind(1))
    u, v = steps * w, steps[:, None] * h
    cos, sin, stride = angle.cos(), angle.sin(), strides[:, None, None]
    return (cx + u * cos - v * sin) / stride - 0.5, (cy + u * sin + v * cos) / stride - 0.5


def bracket(points: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels before and after each point (K, S, S) on one axis, the share of the latter, and whether it counts."""
    size = sizes[:, None, None]
    inside = (points >= -1) & (points <= size)
    kept = torch.minimum(points.clamp(min=0), (size - 1).to(points.dtype))
    before = kept.detach().floor().long()
    after = torch.minimum(before + 1, size - 1)
    return before, after, kept - before, inside
