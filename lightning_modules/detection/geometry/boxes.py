"""Rotated boxes (cx, cy, w, h, θ): pixels and radians, y points down, θ turns x towards y (clockwise on the screen).

Canonical boxes (le90) have w ≥ h and θ in [−π/2, π/2). Upright boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-3  # px: a rectangle with a shorter side is none


def canonical(boxes: Tensor) -> Tensor:
    """The same rectangles (…, 5) with w ≥ h and θ in [−π/2, π/2)."""
    x, y, w, h, angle = boxes.unbind(-1)
    turned = w < h
    angle = wrap(torch.where(turned, angle + math.pi / 2, angle))
    return torch.stack([x, y, torch.where(turned, h, w), torch.where(turned, w, h), angle], -1)


def wrap(angle: Tensor) -> Tensor:
    """Angles modulo π in [−π/2, π/2); one that lies there already is returned bit for bit."""
    found = torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2
    return torch.where((angle >= -math.pi / 2) & (angle < math.pi / 2), angle, found.clamp(max=below_half_pi(angle)))


def below_half_pi(angle: Tensor) -> float:
    """The largest number of the dtype below π/2."""
    half = torch.tensor(math.pi / 2, dtype=angle.dtype)
    return torch.nextafter(half, torch.zeros_like(half)).item()


def corners(boxes: Tensor) -> Tensor:
    """Boxes (…, 5) → their corners (…, 4, 2): (−,−), (+,−), (+,+), (−,+) of (w/2, h/2), turned by θ."""
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    half_w, half_h = boxes[..., 2] / 2, boxes[..., 3] / 2
    along = torch.stack([half_w * cos, half_w * sin], -1)
    across = torch.stack([-half_h * sin, half_h * cos], -1)
    centre = boxes[..., :2]
    points = [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
    return torch.stack(points, -2)


def outer_boxes(boxes: Tensor) -> Tensor:
    """The smallest upright box (…, 4) around each rotated one (…, 5)."""
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    half_w = (boxes[..., 2] * cos + boxes[..., 3] * sin) / 2
    half_h = (boxes[..., 2] * sin + boxes[..., 3] * cos) / 2
    half = torch.stack([half_w, half_h], -1)
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def upright_as_rotated(boxes: Tensor) -> Tensor:
    """Upright boxes (…, 4) as canonical rotated ones (…, 5)."""
    first, last = boxes[..., :2], boxes[..., 2:]
    angle = torch.zeros_like(first[..., :1])
    return canonical(torch.cat([(first + last) / 2, last - first, angle], -1))


def valid(boxes: Tensor) -> Tensor:
    """Whether each box (…, 5) is finite and has two sides (…)."""
    return boxes.isfinite().all(-1) & (boxes[..., 2:4] >= SMALLEST).all(-1)
