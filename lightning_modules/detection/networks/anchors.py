"""Anchors, and which of them, or of the proposals, learn from which object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.detection.geometry.iou import upright_intersection, upright_iou

NEGATIVE, IGNORED = -1, -2  # in place of an object's number
COVERED = 0.5  # the share of itself that lies in a difficult object, from which on a box is ignored


def anchors_of(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], scale: float, ratios: Sequence[float]
) -> Tensor:
    """Upright anchors (N, 4) of maps of these sizes (height, width), map after map, row by row, ratio by ratio.

    Args:
        strides: the image's pixels to one of each map's; centres lie in the middle of a map's pixel.
        scale: side of the square anchor in strides.
        ratios: height to width; all have the square's area.
    """
    found = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        side = scale * stride
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centres = (torch.stack([x, y], -1) * stride)[:, :, None]  # (H, W, 1, 2)
        half = torch.tensor([[side / ratio**0.5 / 2, side * ratio**0.5 / 2] for ratio in ratios])
        found.append(torch.cat([centres - half, centres + half], -1).flatten(0, 2))
    return torch.cat(found)


def match_anchors(
    anchors: Tensor, truths: Tensor, difficult: Tensor, positive: float = 0.7, negative: float = 0.3
) -> Tensor:
    """For each anchor (N, 4) the number of the object it learns, NEGATIVE or IGNORED: (N,).

    Positive: upright IoU of `positive` or more with an object's outer box, its best one's; or the best of an object's
    anchors, all of them where they tie, if that is `negative` or more. Negative: below `negative` with all. An anchor
    that is not positive and lies half or more in a difficult object is ignored.

    Args:
        truths: outer boxes (M, 4) of the objects to learn.
        difficult: outer boxes (D, 4) of those that are neither learnt nor background.
    """
    found = torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    if len(truths):
        iou = upright_iou(anchors, truths)
        best, own = iou.max(1)
        found[best >= negative] = IGNORED
        found[best >= positive] = own[best >= positive]
        highest = iou.amax(0)
        anchor, truth = torch.where((iou == highest) & (highest >= negative))
        found[anchor] = truth
    return without_difficult(found, upright_cover(anchors, difficult))


def match_proposals(iou: Tensor, covered: Tensor, positive: float = 0.5) -> Tensor:
    """For each proposal the number of the object it learns, NEGATIVE or IGNORED: (N,).

    Args:
        iou: with the objects to learn (N, M).
        covered: the share of each proposal that lies in each difficult object (N, D).
    """
    found = torch.full((len(iou),), NEGATIVE, device=iou.device)
    if iou.shape[1]:
        best, own = iou.max(1)
        found = torch.where(best >= positive, own, found)
    return without_difficult(found, covered)


def without_difficult(found: Tensor, covered: Tensor) -> Tensor:
    if not covered.shape[1]:
        return found
    return torch.where((found < 0) & (covered.amax(1) >= COVERED), IGNORED, found)


def upright_cover(boxes: Tensor, others: Tensor) -> Tensor:
    """The share of each upright box (N, 4) that lies in each of the others (M, 4): (N, M)."""
    return upright_intersection(boxes, others) / (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-9)[:, None]


def sample(matches: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Drawn places of positives, at most `share` of `count`, and of negatives, as many as are then left to `count`."""
    positive, negative = torch.where(matches >= 0)[0], torch.where(matches == NEGATIVE)[0]
    positive = drawn(positive, int(count * share))
    return positive, drawn(negative, count - len(positive))


def drawn(places: Tensor, count: int) -> Tensor:
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places))[:count].to(places.device)]
