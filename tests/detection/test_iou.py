"""Rotated IoU against shapely, an exact rational oracle, and the failures that others' forms are known for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.detection import quadrilateral_iou, rotated_iou
from lightning_modules.detection.geometry.boxes import corners
from lightning_modules.detection.geometry.iou import pair_iou, upright_iou
from tests.detection.rational import random_boxes, rational_iou


def shapely_iou(first: Tensor, second: Tensor) -> np.ndarray:
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    one, two = (shapely.polygons(corners(boxes).numpy()) for boxes in (first, second))
    shared = shapely.area(shapely.intersection(one, two))
    return shared / (shapely.area(one) + shapely.area(two) - shared)


@pytest.mark.parametrize("pairs", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_random_pairs_equal_shapely(pairs):
    first, second = random_boxes(pairs, 0), random_boxes(pairs, 1)
    found, expected = pair_iou(first, second), shapely_iou(first, second)
    assert abs(found.numpy() - expected).max() < 1e-9 and 0.3 < (expected > 0).mean() < 0.7
    rough = pair_iou(first.float(), second.float())
    assert abs(rough.numpy() - expected).max() < 1e-4


def test_all_pairs_equal_single_pairs():
    first, second = random_boxes(70, 2), random_boxes(90, 3)
    single = pair_iou(first.repeat_interleave(90, 0), second.repeat(70, 1)).view(70, 90)
    found = rotated_iou(first, second)
    assert torch.allclose(found, single, rtol=0, atol=1e-12) and (found == 0).any()
    assert (rotated_iou(first, second) - rotated_iou(second, first).T).abs().max() < 1e-13


def noisy(size: float):
    def family(boxes: Tensor, generator: torch.Generator) -> Tensor:
        return boxes * (1 + size * (torch.rand(boxes.shape, generator=generator, dtype=boxes.dtype) - 0.5))

    return family


def changed(x: float = 0, y: float = 0, w: float = 1, h: float = 1, turn: float = 0):
    """A family: moved by shares of the box's own sides along its own axes, its sides scaled, turned."""

    def family(boxes: Tensor, generator: torch.Generator) -> Tensor:
        cx, cy, width, height, angle = boxes.unbind(1)
        dx, dy, cos, sin = x * width, y * height, angle.cos(), angle.sin()
        return torch.stack([cx + dx * cos - dy * sin, cy + dx * sin + dy * cos, width * w, height * h, angle + turn], 1)

    return family


def other_reading(boxes: Tensor, generator: torch.Generator) -> Tensor:
    cx, cy, w, h, angle = boxes.unbind(1)
    return torch.stack([cx, cy, h, w, angle + math.pi / 2], 1)


FAMILIES = {
    "identical": changed(),
    "other reading": other_reading,
    "half a turn": changed(turn=math.pi),
    "nested, three sides shared": changed(x=0.25, w=0.5),
    "touching at a side": changed(x=1),
    "touching at a corner": changed(x=1, y=1),
    "45 degrees": changed(turn=math.pi / 4),
    "noise 1e-13": noisy(1e-13),
    "noise 1e-10": noisy(1e-10),
    "noise 1e-7": noisy(1e-7),
    "thin": changed(w=1000, h=0.01, turn=1e-3),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_degenerate_pairs_equal_the_rational_oracle(name):
    first = random_boxes(60, 4)
    second = FAMILIES[name](first, torch.Generator().manual_seed(5))
    found = pair_iou(first, second)
    expected = [rational_iou(*pair) for pair in zip(first, second, strict=True)]
    assert abs(found - torch.tensor(expected, dtype=torch.float64)).max() < 1e-9
    assert (found <= 1 + 1e-12).all() and (found >= 0).all()


@pytest.mark.parametrize("turn", [0, *(10.0**power for power in range(-17, -9))])
def test_a_small_box_in_an_almost_parallel_large_one_keeps_its_area(turn):
    large, small = random_boxes(300, 6, 1e-3, 20, 30), random_boxes(300, 7, 1, 1e-3, 2)
    small[:, 4] = large[:, 4] + turn
    expected = (small[:, 2] * small[:, 3]) / (large[:, 2] * large[:, 3])
    assert ((pair_iou(large, small) - expected).abs() < 1e-12).all()
    assert ((pair_iou(small, large) - expected).abs() < 1e-12).all()


def test_failures_that_were_filed():
    def iou(first, second):
        return rotated_iou(*(torch.tensor([box], dtype=torch.float64) for box in (first, second))).item()

    box = [0, 0, 2.0, 2.0, 0]
    assert iou(box, box) == 1  # rotated_maskrcnn 46 said 1/3
    assert iou(box, [2.0, 0, 2, 2, 0]) == 0  # Rotated_IoU 8 said 1/3
    assert iou([160, 153, 230, 23, -37 / 180 * math.pi], [160, 153, 230, 23, -37 / 180 * math.pi]) == pytest.approx(1)
    assert iou([0, 0, 5, 5, 0], [100, 100, 5, 5, 0.3]) == 0


def test_properties():
    first, second = random_boxes(4000, 8), random_boxes(4000, 9)
    found = pair_iou(first, second)
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (first, second)]
    assert (found <= torch.minimum(*areas) / torch.maximum(*areas) + 1e-12).all()
    turn, moved = 0.7, []
    for boxes in (first, second):
        x, y = boxes[:, 0], boxes[:, 1]
        cos, sin = math.cos(turn), math.sin(turn)
        moved.append(torch.stack([3 * (x * cos - y * sin) + 1e3, 3 * (x * sin + y * cos) - 1e3, 3 * boxes[:, 2],
                                  3 * boxes[:, 3], boxes[:, 4] + turn], 1))  # fmt: skip
    assert (pair_iou(*moved) - found).abs().max() < 1e-11
    apart = second + torch.tensor([200.0, 0, 0, 0, 0], dtype=torch.float64)
    assert pair_iou(first, apart).abs().max() < 1e-12
    flat = first * torch.tensor([1.0, 1, 0, 0, 1], dtype=torch.float64)
    assert (pair_iou(flat, flat) == 0).all() and rotated_iou(first[:0], second).shape == (0, 4000)
    upright = first.clone()
    upright[:, 4] = 0
    edges = torch.cat([upright[:, :2] - upright[:, 2:4] / 2, upright[:, :2] + upright[:, 2:4] / 2], 1)[:50]
    assert (rotated_iou(upright[:50], upright[:50]) - upright_iou(edges, edges)).abs().max() < 1e-12


def test_gradients():
    first, second = random_boxes(6, 10, 10).requires_grad_(), random_boxes(6, 11, 10).requires_grad_()
    assert torch.autograd.gradcheck(pair_iou, (first, second))
    assert torch.autograd.gradcheck(rotated_iou, (first, second))


def test_quadrilaterals():
    boxes, others = random_boxes(40, 12), random_boxes(30, 13)
    expected = rotated_iou(boxes, others)
    assert (quadrilateral_iou(boxes, corners(others)) - expected).abs().max() < 1e-12
    assert (quadrilateral_iou(boxes, corners(others).flip(1)) - expected).abs().max() < 1e-12
    kite = torch.tensor([[[0.0, 0], [4, 0], [4, 2], [0, 4]]], dtype=torch.float64)  # area 12, 8 of it in the box
    assert quadrilateral_iou(torch.tensor([[2.0, 1, 4, 2, 0]], dtype=torch.float64), kite).item() == pytest.approx(
        8 / 12
    )


@pytest.mark.parametrize("box", [[0, 0, -1.0, 2, 0], [0, 0, 1, 2, math.nan], [math.inf, 0, 1, 2, 0]])
def test_what_is_no_box_is_said(box):
    good = random_boxes(2, 14)
    with pytest.raises(ValueError, match="negative side, or a number that is not finite"):
        rotated_iou(good, torch.tensor([box], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"are \(N, 5\)"):
        rotated_iou(good[:, :4], good)
