"""Exact intersection over union of rotated boxes, of all pairs at once, from a closed sum without sorting or tolerance.

In the frame of box A, which is then [−W, W] × [−H, H], a vertical line meets a convex B in one interval [l, u], and
A in clamp(u, −H, H) − clamp(l, −H, H) of it. So the area of A ∩ B is the sum, over B's four edges y(x) walked round, of
∫ clamp(y(x), −H, H) dx over those x that lie in [−W, W]: the integral of a clamped linear function, which is known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.detection.geometry.boxes import corners

PAIRS = 1 << 14  # pairs computed at a time: some dozen arrays of them fit into a core's cache


def rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        first, second: boxes (N, 5) and (M, 5): cx, cy, w, h, θ in radians, any reading of the rectangle.

    Returns:
        (N, M), differentiable; 0 where a box has no area. Pairs whose circumscribed circles do not meet are exactly 0.

    Raises:
        ValueError: a side is negative, or a number is not finite.
    """
    check_boxes(first)
    check_boxes(second)
    rows, columns = near_pairs(first, second)
    found = first.new_zeros(len(first), len(second))
    if not len(rows):
        return found
    values = [pair_iou(first[i], second[j]) for i, j in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True)]
    return found.index_put((rows, columns), torch.cat(values))


def near_pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs whose circumscribed circles meet: their places in `first` and in `second`."""
    with torch.no_grad():
        reach = (first[:, 2:4].norm(dim=1)[:, None] + second[:, 2:4].norm(dim=1)) / 2
        offset = first[:, None, :2] - second[:, :2]
        return torch.where(offset.square().sum(-1) < (reach * (1 + 1e-6)).square())


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (P, 5) and (P, 5), pair by pair."""
    shared = pair_intersection(first, second)
    areas = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    union = areas[0] + areas[1] - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


def pair_intersection(first: Tensor, second: Tensor) -> Tensor:
    """The area that boxes (P, 5) and (P, 5) share, pair by pair."""
    cos, sin = first[:, 4].cos(), first[:, 4].sin()
    dx, dy = (second[:, :2] - first[:, :2]).unbind(1)  # first, so that far from the origin nothing is lost
    angle = second[:, 4] - first[:, 4]
    moved = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin, second[:, 2], second[:, 3], angle], 1)
    area = polygon_in_box(corners(moved), first[:, 2] / 2, first[:, 3] / 2)
    return torch.minimum(area, torch.minimum(first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]))


def polygon_in_box(points: Tensor, half_w: Tensor, half_h: Tensor) -> Tensor:
    """The area that convex polygons (P, V, 2) share with [−half_w, half_w] × [−half_h, half_h], each (P,)."""
    x, y = (part.contiguous() for part in points.unbind(-1))
    total = torch.zeros_like(half_w)
    for here in range(points.shape[1]):
        there = (here + 1) % points.shape[1]
        total = total + edge_integral(x[:, here], y[:, here], x[:, there], y[:, there], half_w, half_h)
    return total.abs()


def edge_integral(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, half_w: Tensor, half_h: Tensor) -> Tensor:
    """∫ clamp(y(x), ±half_h) dx along an edge, over the x in ±half_w; negative where it runs to the left."""
    start, end = x0.clamp(-half_w, half_w), x1.clamp(-half_w, half_w)
    width = x1 - x0
    slope = (y1 - y0) / torch.where(width == 0, 1, width)
    low, high = torch.minimum(y0, y1), torch.maximum(y0, y1)
    p = (y0 + slope * (start - x0)).clamp(low, high)  # kept on the edge: a steep one's slope is large
    q = (y1 + slope * (end - x1)).clamp(low, high)
    return (end - start) * clamped_mean(p, q, half_h)


def clamped_mean(p: Tensor, q: Tensor, limit: Tensor) -> Tensor:
    """The mean of clamp(y, ±limit) for y from p to q."""
    # Differences of maxima, not of relu(q − limit): those round, and lose up to half of a small box in a large one.
    inner_p, inner_q = p.clamp(-limit, limit), q.clamp(-limit, limit)
    above = torch.maximum(q, limit) - torch.maximum(p, limit)
    below = torch.minimum(q, -limit) - torch.minimum(p, -limit)
    rise = q - p
    area = (inner_q - inner_p) * (inner_q + inner_p) / 2 + limit * (above - below)
    return torch.where(rise == 0, inner_p, area / torch.where(rise == 0, 1, rise))


def quadrilateral_iou(boxes: Tensor, quadrilaterals: Tensor) -> Tensor:
    """Intersection over union of every pair of a box (N, 5) and a convex quadrilateral (M, 4, 2): (N, M).

    Args:
        quadrilaterals: corners, walked round in either sense.
    """
    check_boxes(boxes)
    count = len(boxes), len(quadrilaterals)
    return pair_quadrilateral_iou(boxes.repeat_interleave(count[1], 0), quadrilaterals.repeat(count[0], 1, 1)).view(
        count
    )


def pair_quadrilateral_iou(boxes: Tensor, points: Tensor) -> Tensor:
    """Intersection over union of boxes (P, 5) with convex quadrilaterals (P, 4, 2), pair by pair."""
    cos, sin = boxes[:, 4, None].cos(), boxes[:, 4, None].sin()
    dx, dy = (points - boxes[:, None, :2]).unbind(-1)
    moved = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], -1)
    shared = polygon_in_box(moved, boxes[:, 2] / 2, boxes[:, 3] / 2)
    union = boxes[:, 2] * boxes[:, 3] + polygon_areas(points) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


def polygon_areas(points: Tensor) -> Tensor:
    """The areas (…) of simple polygons (…, V, 2)."""
    x, y = (points - points[..., :1, :]).unbind(-1)
    return ((x * y.roll(-1, -1) - x.roll(-1, -1) * y).sum(-1) / 2).abs()


def upright_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair of upright boxes (…, N, 4) and (…, M, 4): (…, N, M)."""
    shared = upright_intersection(first, second)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][..., :, None] + areas[1][..., None, :] - shared).clamp(min=1e-9)


def upright_intersection(first: Tensor, second: Tensor) -> Tensor:
    """The areas (…, N, M) that upright boxes (…, N, 4) and (…, M, 4) share."""
    last = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    return (last - torch.maximum(first[..., :, None, :2], second[..., None, :, :2])).clamp(min=0).prod(-1)


def check_boxes(boxes: Tensor) -> None:
    """Raises ValueError unless these are boxes (N, 5) of finite numbers with sides of 0 or more."""
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"Rotated boxes are (N, 5): cx, cy, w, h, θ; these have the shape {tuple(boxes.shape)}.")
    if not boxes.isfinite().all() or (boxes[:, 2:4] < 0).any():
        raise ValueError("A rotated box has a negative side, or a number that is not finite.")
