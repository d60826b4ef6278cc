"""Turned rectangles, arrays (…, 5): centre x, y (x right, y down), width, height, angle in radians, clockwise."""

from __future__ import annotations

import numpy as np


def ink_rectangles(
    ink: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray, angle: np.ndarray, stretch: np.ndarray | float
) -> np.ndarray:
    """The tight rectangle (…, 5) of each drawn glyph's ink, in units of the image's side.

    Args:
        ink: (…, 4), left, top, right, bottom in the glyph's square of −1 … 1.
        x, y: the square's centre.
        size: its side before it is stretched to size / √stretch by size · √stretch.
        angle: degrees, counter-clockwise on the screen.
    """
    clockwise = -np.radians(angle)
    half_x, half_y = size / np.sqrt(stretch) / 2, size * np.sqrt(stretch) / 2
    left, top, right, bottom = (ink[..., side] for side in range(4))
    across, down = (left + right) / 2 * half_x, (top + bottom) / 2 * half_y
    cos, sin = np.cos(clockwise), np.sin(clockwise)
    centre = x + cos * across - sin * down, y + sin * across + cos * down
    return np.stack(np.broadcast_arrays(*centre, (right - left) * half_x, (bottom - top) * half_y, clockwise), -1)


def outer_sides(rectangles: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom (…, 4) of the upright rectangles around them."""
    x, y, width, height, angle = (rectangles[..., part] for part in range(5))
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return np.stack([x - across, y - down, x + across, y + down], -1)


def grown(rectangles: np.ndarray, margin: float) -> np.ndarray:
    """With `margin` more on each of the four sides."""
    return rectangles + np.array([0, 0, 2 * margin, 2 * margin, 0])


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Have they no area in common? (…, 5) and (…, 5), broadcast → (…). Exact: two convex figures are apart when a
    line along a side of one of them separates them."""
    turn = other[..., 4] - one[..., 4]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    found = np.zeros(turn.shape, bool)
    for own, foreign in ((one, other), (other, one)):
        x, y, angle = foreign[..., 0] - own[..., 0], foreign[..., 1] - own[..., 1], own[..., 4]
        along = np.abs(x * np.cos(angle) + y * np.sin(angle))
        across = np.abs(y * np.cos(angle) - x * np.sin(angle))
        found |= 2 * along >= own[..., 2] + foreign[..., 2] * cos + foreign[..., 3] * sin
        found |= 2 * across >= own[..., 3] + foreign[..., 2] * sin + foreign[..., 3] * cos
    return found


def canonical(rectangles: np.ndarray) -> np.ndarray:
    """The same rectangles, width ≥ height and −π/2 ≤ angle < π/2 (“le90”)."""
    x, y, width, height, angle = (rectangles[..., part] for part in range(5))
    angle = np.where(width < height, angle + np.pi / 2, angle)
    angle = (angle + np.pi / 2) % np.pi - np.pi / 2
    angle = np.where(angle >= np.pi / 2, -np.pi / 2, angle)  # of −1e-17, 1e-17 % π is π by rounding
    return np.stack([x, y, np.maximum(width, height), np.minimum(width, height), angle], -1)


def corners(rectangles: np.ndarray) -> np.ndarray:
    """The four corners (…, 4, 2), x and y, one after the other around each rectangle."""
    x, y, width, height, angle = (rectangles[..., part, None] for part in range(5))
    across, down = width / 2 * np.array([-1, 1, 1, -1]), height / 2 * np.array([-1, -1, 1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + cos * across - sin * down, y + sin * across + cos * down], -1)


def share_inside(rectangles: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of each rectangle's area (…,) that lies in a window of x from 0 to `width`, y from 0 to `height`.

    Exact, by a line integral: the window's part of a slab between two values of y is the difference of both clamped, so
    the area is |Σ over the rectangle's edges of ∫ clamp(y) dx|, x clamped too.
    """
    half_x, half_y = width / 2, height / 2
    places = corners(rectangles.astype(np.float64)) - np.array([half_x, half_y])
    ends = np.roll(places, -1, axis=-2)
    (x0, y0), (x1, y1) = ((part[..., 0], part[..., 1]) for part in (places, ends))
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros_like(x0), where=x1 != x0)
    a, b = np.clip(x0, -half_x, half_x), np.clip(x1, -half_x, half_x)
    p, q = (np.clip(y0 + slope * (x - x0), np.minimum(y0, y1), np.maximum(y0, y1)) for x in (a, b))
    c, d = np.clip(p, -half_y, half_y), np.clip(q, -half_y, half_y)
    above = half_y * (np.maximum(q, half_y) - np.maximum(p, half_y))
    below = half_y * (np.minimum(q, -half_y) - np.minimum(p, -half_y))
    mean = np.divide((d - c) * (c + d) / 2 + above - below, q - p, out=c.copy(), where=q != p)
    inside = np.abs(((b - a) * mean).sum(-1))
    area = rectangles[..., 2] * rectangles[..., 3]
    return np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)
