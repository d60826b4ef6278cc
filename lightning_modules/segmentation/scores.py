"""How good masks are: everything from one summed confusion matrix, and how well boundaries are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 3 / (480 * 360) ** 0.5  # of a boundary: 3 pixels at 480×360


def confusions(predicted: Tensor, masks: Tensor, classes: int, ignore: int = -1) -> Tensor:
    """How often each class (row) is taken for which (column), of each image: int64 (B, classes, classes).

    Args:
        predicted: (B, H, W), 0 … classes − 1.
        masks: (B, H, W); pixels of `ignore` count nowhere.
    """
    valid = masks != ignore
    image = torch.arange(len(masks), device=masks.device).view(-1, 1, 1)
    places = (image * classes + masks.long()) * classes + predicted
    counts = torch.bincount(places[valid], minlength=len(masks) * classes**2)
    return counts.view(len(masks), classes, classes)


def ious(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class (classes,), NaN for one that is neither in masks nor predicted."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Over the classes that are in masks or predicted; NaN without any."""
    found = ious(confusion)
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def scores(confusion: np.ndarray, names: Sequence[str], background: bool = False) -> dict[str, float]:
    """The figures of a whole split's confusion matrix, int64 (classes, classes), summed over its images.

    `miou`, `iou_<class>` (without those that are nowhere), `classes_counted`, `pixel_accuracy`, `class_accuracy` (the
    mean of the classes in masks), `fw_iou` (IoU weighted by each class's pixels); with a background `miou_objects`,
    which leaves it out. Of a split without a labelled pixel only `classes_counted`.
    """
    found, own, total = ious(confusion), confusion.sum(1), confusion.sum()
    figures = {"classes_counted": float(np.isfinite(found).sum())}
    if not total:
        return figures
    figures |= {"miou": float(np.nanmean(found)), "pixel_accuracy": float(np.trace(confusion) / total)}
    figures["class_accuracy"] = float((np.diag(confusion)[own > 0] / own[own > 0]).mean())
    figures["fw_iou"] = float((found[own > 0] * own[own > 0]).sum() / total)
    if background and np.isfinite(found[1:]).any():
        figures["miou_objects"] = float(np.nanmean(found[1:]))
    return figures | {f"iou_{key(name)}": float(v) for name, v in zip(names, found, strict=True) if np.isfinite(v)}


def key(name: str) -> str:
    """A class's name as part of a figure's."""
    return name.lower().replace(" ", "_").replace("/", "_")


def tolerance(height: int, width: int) -> int:
    """Pixels by which a boundary may be missed: 3 at 480×360, at least 1."""
    return max(1, round(TOLERANCE * (height * width) ** 0.5))


def boundary_counts(predicted: Tensor, masks: Tensor, classes: int, ignore: int, reach: int) -> Tensor:
    """Of each class's boundary pixels: predicted ones, those of them near the mask's, the mask's, those of them near
    predicted ones: int64 (B, classes, 4).

    A pixel is on its class's boundary where one of its four neighbours has another class; pixels of `ignore` are
    neither. Near is up to `reach` pixels away across and down.
    """
    valid = masks != ignore
    found = []
    for labels in (predicted, masks):
        shown = F.one_hot(labels.clamp(0, classes - 1).long(), classes).permute(0, 3, 1, 2).bool()
        found.append(shown & edges(labels, valid)[:, None])
    own, true = found
    near_true, near_own = (
        F.max_pool2d(boundary.float(), 2 * reach + 1, stride=1, padding=reach) > 0 for boundary in (true, own)
    )
    kinds = (own, own & near_true, true, true & near_own)
    return torch.stack([kind.sum((2, 3)) for kind in kinds], -1)


def edges(labels: Tensor, valid: Tensor) -> Tensor:
    """Pixels with a neighbour of another class, both labelled: bool (B, H, W)."""
    across = (labels[:, :, 1:] != labels[:, :, :-1]) & valid[:, :, 1:] & valid[:, :, :-1]
    down = (labels[:, 1:] != labels[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    found = torch.zeros_like(valid)
    found[:, :, 1:] |= across
    found[:, :, :-1] |= across
    found[:, 1:] |= down
    found[:, :-1] |= down
    return found


def boundary_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of each class (classes,) from its summed `boundary_counts` (classes, 4), NaN without any boundary."""
    own, hit, true, met = counts.astype(np.float64).T
    precision, recall = hit / np.maximum(own, 1), met / np.maximum(true, 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)
    return np.where(own + true > 0, f1, np.nan)


WEIGHTS = ("none", "median", "sqrt_median", "enet")


def class_weights(pixels: np.ndarray, sizes: np.ndarray, kind: str) -> np.ndarray:
    """What each class counts in the loss (classes,); 0 for one that training masks do not have.

    - `median`: median of the classes' frequencies over its own, f = its pixels / all pixels of images that have it
      (Eigen & Fergus 2015, arXiv 1411.4734, section 6.3.2); `sqrt_median`: the square root.
    - `enet`: 1 / ln(1.02 + p), p its share of labelled pixels (Paszke et al. 2016, arXiv 1606.02147, section 4.1).

    Args:
        pixels: of each training image and class (N, classes).
        sizes: all pixels of each image (N,).
    """
    total = pixels.sum(0)
    there = total > 0
    if kind == "none":
        return np.ones(pixels.shape[1])
    if kind == "enet":
        return np.where(there, 1 / np.log(1.02 + total / max(1, total.sum())), 0)
    frequency = total / np.maximum(1, ((pixels > 0) * sizes[:, None]).sum(0))
    weights = np.divide(np.median(frequency[there]), frequency, out=np.zeros(len(total)), where=there)
    return np.sqrt(weights) if kind == "sqrt_median" else weights


def of_groups(confusion: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`miou_<group>` of each group of rows of (N, classes, classes)."""
    return {f"miou_{name}": mean_iou(confusion[rows].sum(0)) for name, rows in groups.items() if len(rows)}
