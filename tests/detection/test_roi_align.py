"""Rotated RoIAlign against torchvision's, turned maps, linear fields and numerical gradients."""

from __future__ import annotations

import math

import torch
from torchvision.ops import roi_align

from lightning_modules.detection import roi_align_rotated
from lightning_modules.detection.geometry.boxes import outer_boxes
from lightning_modules.detection.geometry.roi_align import pyramid_align
from tests.detection.rational import random_boxes

GENERATOR = torch.Generator().manual_seed(0)


def maps(*shape):
    return torch.rand(*shape, generator=GENERATOR, dtype=torch.float64)


def test_upright_boxes_equal_torchvisions():
    features, boxes = maps(2, 3, 16, 20), random_boxes(100, 0, 80, 4, 60)  # many cross the border
    boxes[:, 4] = 0
    images = torch.arange(100) % 2
    found = roi_align_rotated(features, boxes, images, stride=4)
    rois = torch.cat([images[:, None].double(), outer_boxes(boxes)], 1)
    expected = roi_align(features, rois, 7, 0.25, sampling_ratio=2, aligned=True)
    assert (found - expected).abs().max() < 1e-12 and (expected == 0).any()


def test_a_quarter_turn_is_the_turned_map():
    features, boxes = maps(1, 2, 18, 18), random_boxes(30, 1, 18, 2, 10)
    boxes[:, 4] = 0
    x, y, w, h, _ = boxes.unbind(1)
    turned = torch.stack([x, y, w, h, torch.full_like(x, math.pi / 2)], 1)
    moved = torch.stack([y, 18 - x, w, h, torch.zeros_like(x)], 1)
    difference = roi_align_rotated(features, turned) - roi_align_rotated(features.rot90(1, (2, 3)), moved)
    assert difference.abs().max() < 1e-12


def test_half_a_turn_flips_both_axes():
    features, boxes = maps(1, 2, 18, 18), random_boxes(30, 2, 18, 2, 10)
    half = boxes + torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)
    difference = roi_align_rotated(features, half) - roi_align_rotated(features, boxes).flip(2, 3)
    assert difference.abs().max() < 1e-12


def test_a_linear_field_gives_its_value_at_each_bins_centre():
    y, x = torch.meshgrid(torch.arange(40.0).double(), torch.arange(40.0).double(), indexing="ij")
    field = (0.3 * (x + 0.5) - 0.7 * (y + 0.5) + 2)[None, None]
    boxes = random_boxes(30, 3, 10, 2, 12) + torch.tensor([15.0, 15, 0, 0, 0])
    steps = (torch.arange(7, dtype=torch.float64) + 0.5) / 7 - 0.5
    cx, cy, w, h, angle = (part[:, None, None] for part in boxes.unbind(1))
    u, v = steps * w, steps[:, None] * h
    at_x, at_y = cx + u * angle.cos() - v * angle.sin(), cy + u * angle.sin() + v * angle.cos()
    assert (roi_align_rotated(field, boxes)[:, 0] - (0.3 * at_x - 0.7 * at_y + 2)).abs().max() < 1e-10


def test_gradients_of_features_and_boxes():
    features = maps(2, 2, 6, 7).requires_grad_()
    boxes = random_boxes(3, 4, 6, 2, 6).requires_grad_()
    images = torch.tensor([0, 1, 1])

    def align(features, boxes):
        return roi_align_rotated(features, boxes, images, size=3)

    assert torch.autograd.gradcheck(align, (features, boxes))


def test_several_maps_at_once_are_each_boxs_own():
    levels = [maps(2, 3, 16, 16), maps(2, 3, 8, 8)]
    boxes, images, own = random_boxes(20, 5, 32, 4, 20), torch.arange(20) % 2, torch.arange(20) // 2 % 2
    found = pyramid_align(levels, boxes, images, own, [2, 4])
    for level in (0, 1):
        chosen = own == level
        expected = roi_align_rotated(levels[level], boxes[chosen], images[chosen], stride=[2, 4][level])
        assert found[chosen].equal(expected)
    assert roi_align_rotated(levels[0], boxes[:0]).shape == (0, 3, 7, 7)
