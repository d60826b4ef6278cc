"""Canonical boxes, midpoint offsets, the head's offsets: each inverts the other."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.detection.geometry.boxes import canonical, corners, outer_boxes, valid, wrap
from lightning_modules.detection.geometry.coding import (
    HEAD_SCALE,
    decode_head,
    decode_midpoints,
    encode_head,
    encode_midpoints,
)
from lightning_modules.detection.geometry.iou import pair_iou
from tests.detection.rational import random_boxes


def hard_boxes(count: int) -> torch.Tensor:
    """Random boxes, of special angles, and a hundred times as long as wide, canonical."""
    boxes = random_boxes(count, 0, 100, 2, 82)
    special = torch.tensor([0, math.pi / 2, -math.pi / 2, math.pi / 4, -math.pi / 4, 0.01, -0.01, 0.0026, 0.025])
    turned = random_boxes(9 * 20, 1, 100, 2, 82)
    turned[:, 4] = special.double().repeat(20)
    thin = random_boxes(200, 2, 100, 1, 2)
    thin[:, 2] *= 100
    return canonical(torch.cat([boxes, turned, thin]))


def test_canonical_boxes_are_the_same_rectangles():
    boxes = random_boxes(500, 3) + torch.tensor([0, 0, 0, 0, 5.0])
    found = canonical(boxes)
    assert (found[:, 2] >= found[:, 3]).all() and (found[:, 4] >= -math.pi / 2).all()
    assert (found[:, 4] < math.pi / 2).all() and (pair_iou(boxes, found) - 1).abs().max() < 1e-12
    assert canonical(found).equal(found)
    for dtype in (torch.float32, torch.float64):
        edge = torch.tensor([math.pi / 2, -math.pi / 2, 3 * math.pi / 2, -math.pi / 2 - 1e-9, 1e-17], dtype=dtype)
        assert ((wrap(edge) >= -math.pi / 2) & (wrap(edge).double() < math.pi / 2 + 1e-7)).all()


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_midpoint_offsets_come_back(count):
    boxes = hard_boxes(count)
    anchors = outer_boxes(random_boxes(len(boxes), 4, 100, 20, 80) * torch.tensor([1, 1, 1, 1, 0.0]))
    found, outer = decode_midpoints(encode_midpoints(boxes, anchors), anchors)
    assert (pair_iou(boxes, found) - 1).abs().max() < 1e-9
    assert (found[:, :4] - boxes[:, :4]).abs().max() < 1e-9 and wrap(found[:, 4] - boxes[:, 4]).abs().max() < 1e-9
    assert (outer - outer_boxes(boxes)).abs().max() < 1e-9


def test_thin_boxes_survive_in_float32():
    """A 40 × 4 box, just turned: forms that search for the top corner within 0.1 px destroy it."""
    angles = torch.linspace(-0.03, 0.03, 501)
    boxes = torch.tensor([50.0, 50, 40, 4, 0]).repeat(501, 1)
    boxes[:, 4] = angles
    anchors = torch.tensor([30.0, 42, 70, 58]).repeat(501, 1)
    found, _ = decode_midpoints(encode_midpoints(boxes, anchors), anchors)
    assert pair_iou(boxes.double(), found.double()).min() > 0.999


def test_any_offsets_name_a_rectangle_of_the_longer_diagonal():
    drawn = torch.randn(2000, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    anchors = torch.tensor([10.0, 10, 42, 26], dtype=torch.float64).expand(2000, 4)
    boxes, outer = decode_midpoints(drawn, anchors)
    points = corners(boxes)
    diagonals = (points[:, 0] - points[:, 2]).norm(dim=1), (points[:, 1] - points[:, 3]).norm(dim=1)
    w, h = (outer[:, 2:] - outer[:, :2]).unbind(1)
    alpha, beta = (drawn[:, 4] / 2).clamp(-0.5, 0.5) * w, (drawn[:, 5] / 2).clamp(-0.5, 0.5) * h
    longer = torch.maximum((4 * alpha**2 + h**2).sqrt(), (4 * beta**2 + w**2).sqrt())
    for diagonal in diagonals:
        assert (diagonal / longer - 1).abs().max() < 1e-9
    mixed = torch.tensor([[0, 0, 0, 0, 1.0, -1.0]], dtype=torch.float64)
    assert not valid(decode_midpoints(mixed, anchors[:1])[0]).any()


def test_head_offsets_come_back():
    boxes, proposals = hard_boxes(5000), canonical(random_boxes(5380, 6, 100, 2, 82))
    offsets = encode_head(boxes, proposals)
    assert (offsets[:, 4].abs() * HEAD_SCALE[4] <= math.pi / 4 + 1e-12).all()
    proposals[:, 2:4] = proposals[:, 2:4].clamp(10, 60)  # the logarithm of a side's ratio is limited
    found = decode_head(encode_head(boxes, proposals), proposals)
    assert (pair_iou(boxes, found) - 1).abs().max() < 1e-9
    assert encode_head(proposals, proposals).abs().max() == 0
    turned = proposals + torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)
    assert encode_head(turned, proposals).abs().max() < 1e-12
