"""How boxes are told to a network: the RPN's midpoint offsets, and the head's offsets in a proposal's own frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_modules.detection.geometry.boxes import canonical, wrap

LIMIT = abs(math.log(0.016))  # of the logarithms of a side's ratio: 4.135
MIDPOINT_SCALE = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5)
HEAD_SCALE = (0.1, 0.1, 0.2, 0.2, 0.1)


def encode_midpoints(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Canonical boxes (…, 5) as offsets (…, 6) from upright anchors (…, 4): δx, δy, δw, δh of the outer box, δα, δβ.

    δα and δβ are the distances of the box's top and right corner from the middle of the outer box's side, in its sides
    (Oriented R-CNN, Eq. 1 and 2), in closed form: no corner is searched for, so that no tie can break.
    """
    x, y, w, h, angle = boxes.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    outer_w, outer_h = w * cos + h * sin.abs(), w * sin.abs() + h * cos
    alpha = torch.where(angle >= 0, h * sin - w * cos, w * cos + h * sin) / 2 / outer_w
    beta = torch.where(angle >= 0, w * sin - h * cos, w * sin + h * cos) / 2 / outer_h
    ax, ay, aw, ah = centre_size(anchors)
    offsets = [(x - ax) / aw, (y - ay) / ah, (outer_w / aw).log(), (outer_h / ah).log(), alpha, beta]
    return torch.stack(offsets, -1) / boxes.new_tensor(MIDPOINT_SCALE)


def decode_midpoints(offsets: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (…, 6) at upright anchors (…, 4) → canonical boxes (…, 5) and the upright outer boxes (…, 4) they name.

    The corners that the offsets name are a parallelogram's: its shorter diagonal is drawn out to the longer one's
    length, which makes a rectangle (3.2.1). One of no area has a side near 0: see `boxes.valid`.
    """
    dx, dy, dw, dh, alpha, beta = (offsets * offsets.new_tensor(MIDPOINT_SCALE)).unbind(-1)
    ax, ay, aw, ah = centre_size(anchors)
    x, y = ax + aw * dx, ay + ah * dy
    w, h = aw * dw.clamp(-LIMIT, LIMIT).exp(), ah * dh.clamp(-LIMIT, LIMIT).exp()
    top = torch.stack([alpha.clamp(-0.5, 0.5) * w, -h / 2], -1)  # from the centre
    right = torch.stack([w / 2, beta.clamp(-0.5, 0.5) * h], -1)
    outer = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    return rectangle(torch.stack([x, y], -1), top, right), outer


def rectangle(centre: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The canonical box (…, 5) of a parallelogram with these half diagonals (…, 2), the shorter one drawn out."""
    lengths = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)
    longer = torch.maximum(*lengths)
    first, second = first * (longer / lengths[0]), second * (longer / lengths[1])
    side = second - first
    sides = [side.norm(dim=-1, keepdim=True), (first + second).norm(dim=-1, keepdim=True)]
    angle = torch.atan2(side[..., 1:], side[..., :1])
    return canonical(torch.cat([centre, *sides, angle], -1))


def encode_head(boxes: Tensor, proposals: Tensor) -> Tensor:
    """Boxes (…, 5) as offsets (…, 5) in the frame of proposals (…, 5): dx, dy, dw, dh, dθ.

    Of the box's two readings (w, h, θ) and (h, w, θ + π/2) that one counts whose angle is nearer: |dθ| ≤ π/4.
    """
    px, py, pw, ph, pa = proposals.unbind(-1)
    x, y, w, h, angle = boxes.unbind(-1)
    cos, sin = pa.cos(), pa.sin()
    turn = wrap(angle - pa)
    other = turn.abs() > math.pi / 4
    turn = torch.where(other, wrap(turn + math.pi / 2), turn)
    w, h = torch.where(other, h, w), torch.where(other, w, h)
    dx = ((x - px) * cos + (y - py) * sin) / pw
    dy = ((y - py) * cos - (x - px) * sin) / ph
    offsets = torch.stack([dx, dy, (w / pw).log(), (h / ph).log(), turn], -1)
    return offsets / boxes.new_tensor(HEAD_SCALE)


def decode_head(offsets: Tensor, proposals: Tensor) -> Tensor:
    """The inverse of `encode_head`, canonical."""
    dx, dy, dw, dh, turn = (offsets * offsets.new_tensor(HEAD_SCALE)).unbind(-1)
    px, py, pw, ph, pa = proposals.unbind(-1)
    cos, sin = pa.cos(), pa.sin()
    x = px + pw * dx * cos - ph * dy * sin
    y = py + pw * dx * sin + ph * dy * cos
    w, h = pw * dw.clamp(-LIMIT, LIMIT).exp(), ph * dh.clamp(-LIMIT, LIMIT).exp()
    return canonical(torch.stack([x, y, w, h, pa + turn], -1))


def centre_size(boxes: Tensor) -> tuple[Tensor, ...]:
    """Upright boxes (…, 4) → cx, cy, w, h (…)."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return (*((first + last) / 2).unbind(-1), *(last - first).unbind(-1))
