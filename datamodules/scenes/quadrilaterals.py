"""Quadrilaterals (4, 2), corners in the order they are walked round: what is one, and the smallest rectangle around."""

from __future__ import annotations

import numpy as np

from datamodules.scenes.rectangles import canonical


def fault(points: np.ndarray) -> str | None:
    """What keeps four points from being a quadrilateral with an area, in words; None: nothing."""
    if not np.isfinite(points).all():
        return "a coordinate is no finite number"
    if crosses(*points[[0, 1, 2, 3]]) or crosses(*points[[1, 2, 3, 0]]):
        return "its sides cross"
    rectangle = smallest_rectangle(points)
    if rectangle[3] < 1e-3:
        return "its corners lie on a line"
    return None


def crosses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Do the segments a b and c d cross inside both?"""
    return bool(turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0)


def turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Above 0 where a, b, c turn one way, below where they turn the other."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def is_convex(points: np.ndarray) -> bool:
    turns = [turn(*points[[place, (place + 1) % 4, (place + 2) % 4]]) for place in range(4)]
    return min(turns) >= 0 or max(turns) <= 0


def smallest_rectangle(points: np.ndarray) -> np.ndarray:
    """The canonical rectangle (5,) of the least area around points (N, 2): one of its sides lies along two of them."""
    sides = (points[None] - points[:, None]).reshape(-1, 2)
    angles = np.arctan2(sides[:, 1], sides[:, 0])[np.abs(sides).sum(1) > 0]
    angles = np.unique(np.append(angles % (np.pi / 2), 0.0))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    along, across = points[:, 0] * cos + points[:, 1] * sin, points[:, 1] * cos - points[:, 0] * sin  # (A, N)
    width, height = np.ptp(along, axis=1), np.ptp(across, axis=1)
    best = int((width * height).argmin())
    u, v = ((part[best].max() + part[best].min()) / 2 for part in (along, across))
    c, s = cos[best, 0], sin[best, 0]
    return canonical(np.array([u * c - v * s, u * s + v * c, width[best], height[best], angles[best]]))
