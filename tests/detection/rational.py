"""An exact oracle: the area two rotated boxes share, by clipping polygons in rational numbers."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from lightning_modules.detection.geometry.boxes import corners

Point = tuple[Fraction, Fraction]


def rational_iou(first: Tensor, second: Tensor) -> float:
    """Of two boxes (5,) float64, whose corners are rounded once and then taken as exact."""
    one, two = ([tuple(map(Fraction, point)) for point in corners(box).tolist()] for box in (first, second))
    shared = area(clipped(one, two))
    return float(shared / (area(one) + area(two) - shared))


def clipped(polygon: list[Point], window: list[Point]) -> list[Point]:
    """Sutherland and Hodgman's: `polygon` cut by each side of the convex `window`, both walked round alike."""
    for (x0, y0), (x1, y1) in zip(window, window[1:] + window[:1], strict=True):
        sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in polygon]
        found = []
        for place, (here, side) in enumerate(zip(polygon, sides, strict=True)):
            before, side_before = polygon[place - 1], sides[place - 1]
            if (side < 0) != (side_before < 0):
                share = side_before / (side_before - side)
                found.append(tuple(a + share * (b - a) for a, b in zip(before, here, strict=True)))
            if side >= 0:
                found.append(here)
        polygon = found
    return polygon


def area(polygon: list[Point]) -> Fraction:
    following = polygon[1:] + polygon[:1]
    return abs(sum((x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, following, strict=True)), Fraction(0))) / 2


def random_boxes(count: int, seed: int, span: float = 40, smallest: float = 2, largest: float = 32) -> Tensor:
    """Boxes (N, 5) float64: centres in span², sides between the two, any angle."""
    drawn = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sides = smallest + drawn[:, 2:4] * (largest - smallest)
    return torch.cat([drawn[:, :2] * span, sides, (drawn[:, 4:] - 0.5) * torch.pi], 1)
