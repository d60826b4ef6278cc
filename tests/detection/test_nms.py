"""Rotated NMS against a plain loop, torchvision's, and crossed bars."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import nms

from lightning_modules.detection import rotated_iou, rotated_nms
from lightning_modules.detection.geometry.boxes import corners, outer_boxes
from tests.detection.rational import random_boxes


def loop(boxes, scores, threshold, groups=None):
    """The definition, with shapely's areas."""
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    polygons = shapely.polygons(corners(boxes).numpy())
    kept = []
    for place in sorted(range(len(boxes)), key=lambda place: (-scores[place], place)):
        one = polygons[place]
        rivals = [other for other in kept if groups is None or groups[other] == groups[place]]
        shared = [shapely.area(shapely.intersection(one, polygons[other])) for other in rivals]
        union = [one.area + polygons[other].area - part for other, part in zip(rivals, shared, strict=True)]
        if all(part <= threshold * whole for part, whole in zip(shared, union, strict=True)):
            kept.append(place)
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_equals_a_plain_loop(threshold):
    boxes = random_boxes(150, 0, 60)
    scores = torch.rand(150, generator=torch.Generator().manual_seed(1)).mul(10).round() / 10  # many are equal
    groups = torch.arange(150) % 3
    assert rotated_nms(boxes, scores, threshold).tolist() == loop(boxes, scores.tolist(), threshold)
    found = rotated_nms(boxes, scores, threshold, groups)
    assert found.tolist() == loop(boxes, scores.tolist(), threshold, groups.tolist())


def test_upright_boxes_equal_torchvisions():
    boxes = random_boxes(300, 2, 60)
    boxes[:, 4] = 0
    scores = torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert rotated_nms(boxes, scores, 0.3).equal(nms(outer_boxes(boxes), scores, 0.3))


def test_crossed_bars_both_stay():
    bars = torch.tensor([[50, 50, 60, 12, math.pi / 4], [50, 50, 60, 12, -math.pi / 4]], dtype=torch.float64)
    scores = torch.tensor([0.9, 0.8])
    assert rotated_iou(bars, bars)[0, 1].item() == pytest.approx(144 / (2 * 720 - 144))  # 0.11
    assert rotated_nms(bars, scores, 0.3).tolist() == [0, 1]
    assert nms(outer_boxes(bars), scores.double(), 0.3).tolist() == [0]


def test_nothing_and_one():
    boxes = random_boxes(1, 4)
    assert rotated_nms(boxes[:0], torch.zeros(0), 0.5).tolist() == []
    assert rotated_nms(boxes, torch.zeros(1), 0.5).tolist() == [0]
