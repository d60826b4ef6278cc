"""Greedy non-maximum suppression of rotated boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_modules.detection.geometry.iou import check_boxes, near_pairs, pair_iou

ROWS = 2048  # of the table of pairs, formed at a time


def rotated_nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None) -> Tensor:
    """The boxes that no better one covers: each drops those behind it whose IoU with it is above the threshold.

    Args:
        boxes: (N, 5).
        scores: (N,); of equal ones the earlier box comes first.
        threshold: IoU, 0 to 1.
        groups: (N,), say classes: only boxes of one group drop each other; None: all do.

    Returns:
        Indices (K,) of the boxes kept, the best first.
    """
    order = scores.argsort(descending=True, stable=True)
    with torch.no_grad():
        covers = covering(boxes[order], threshold, None if groups is None else groups[order])
    dropped, kept = np.zeros(len(order), bool), []
    for place, row in enumerate(covers.cpu().numpy()):
        if not dropped[place]:
            kept.append(place)
            dropped |= row
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def covering(boxes: Tensor, threshold: float, groups: Tensor | None) -> Tensor:
    """Whether each box (row) covers each (column) by more than the threshold, one of its group: (N, N)."""
    check_boxes(boxes)
    found = torch.zeros(len(boxes), len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), ROWS):
        i, j = near_pairs(boxes[start : start + ROWS], boxes)
        i = i + start
        wanted = i < j if groups is None else (i < j) & (groups[i] == groups[j])
        i, j = i[wanted], j[wanted]
        for rows, columns in zip(i.split(ROWS * 8), j.split(ROWS * 8), strict=True):
            found[rows, columns] = pair_iou(boxes[rows], boxes[columns]) > threshold
    return found
