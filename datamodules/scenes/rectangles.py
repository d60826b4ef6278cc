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
