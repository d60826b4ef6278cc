"""What upright boxes could reach at best: two detectors that know the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lightning_modules.detection.geometry.boxes import outer_boxes, upright_as_rotated
from lightning_modules.detection.geometry.iou import pair_iou

STEPS = 21  # sizes tried on each axis


def outer_answers(truths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each image the outer box of every object (T, 7), as detections of score 1."""
    return [as_answers(upright_as_rotated(outer_boxes(torch.as_tensor(own[:, :5]).double())), own) for own in truths]


def shrunk_answers(truths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each image the upright box around every object's centre that meets it best (T, 7), as detections of score 1:
    the best of `STEPS`² sizes from its shorter side to its outer box's."""
    found = []
    for own in truths:
        boxes = torch.as_tensor(own[:, :5]).double()
        outer = outer_boxes(boxes)
        largest = outer[:, 2:] - outer[:, :2]
        least = boxes[:, 2:4].amin(1, keepdim=True).expand(-1, 2)
        shares = torch.linspace(0, 1, STEPS, dtype=torch.float64)
        shares = torch.cartesian_prod(shares, shares)  # (S, 2)
        sizes = least[:, None] + shares * (largest - least)[:, None]  # (T, S, 2)
        centres = boxes[:, None, :2].expand_as(sizes)
        tried = torch.cat([centres, sizes, torch.zeros_like(sizes[..., :1])], -1)
        iou = pair_iou(tried.flatten(0, 1), boxes.repeat_interleave(len(shares), 0)).view(len(boxes), len(shares))
        best = iou.argmax(1) if len(boxes) else torch.zeros(0, dtype=torch.int64)
        found.append(as_answers(tried[torch.arange(len(boxes)), best], own))
    return found


def as_answers(boxes: torch.Tensor, own: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes.numpy(), np.ones((len(own), 1)), own[:, 5:6]], 1)
