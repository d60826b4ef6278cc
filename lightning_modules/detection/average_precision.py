"""Average precision by PASCAL VOC's rules, with IoU of rotated boxes, and what else detections are judged by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lightning_modules.detection.geometry.iou import pair_iou, pair_quadrilateral_iou

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
SQUARE = 1.1  # below this w / h a box has no one direction


class Judged(NamedTuple):
    """All detections, the best first (equal scores in the order given), and what each meets.

    scores (D,), classes (D,), images (D,), places (D,): the detection's number in its image.
    iou (D,): the largest with an object of its class in its image, 0 without one; truths (D,): that object's number
        among all images' objects, −1 without one.
    true_classes (T,), difficult (T,), of all images' objects; boxes (D, 5) and true_boxes (T, 5).
    any_iou (D,): the largest with an object of any class.
    """

    scores: np.ndarray
    classes: np.ndarray
    images: np.ndarray
    places: np.ndarray
    iou: np.ndarray
    truths: np.ndarray
    true_classes: np.ndarray
    difficult: np.ndarray
    boxes: np.ndarray
    true_boxes: np.ndarray
    any_iou: np.ndarray


def judge(
    detections: Sequence[np.ndarray], truths: Sequence[np.ndarray], polygons: Sequence[np.ndarray] | None = None
) -> Judged:
    """What each detection of each image meets.

    Args:
        detections: of each image (D, 7): cx, cy, w, h, θ, score, class.
        truths: of each image (T, 7): cx, cy, w, h, θ, class, difficult.
        polygons: of each image (T, 4, 2), convex: what is compared in place of the truths' boxes.
    """
    images = np.repeat(np.arange(len(detections)), [len(own) for own in detections])
    places = np.concatenate([np.arange(len(own)) for own in detections]) if len(detections) else np.zeros(0, int)
    found, true = (np.concatenate([np.zeros((0, 7)), *parts]).astype(np.float64) for parts in (detections, truths))
    order = np.argsort(-found[:, 5], kind="stable")
    found, images, places = found[order], images[order], places[order]
    counts = np.array([len(own) for own in truths], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) if len(counts) else np.zeros(0, np.int64)
    # Every pair of a detection with an object of its image, detection after detection.
    own = counts[images]
    rows = np.repeat(np.arange(len(found)), own)
    columns = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own) + np.repeat(starts[images], own)
    boxes = torch.from_numpy(found[rows, :5])
    if polygons is None:
        values = pair_iou(boxes, torch.from_numpy(true[columns, :5])).numpy()
    else:
        points = np.concatenate([np.zeros((0, 4, 2)), *polygons]).astype(np.float64)
        values = pair_quadrilateral_iou(boxes, torch.from_numpy(points[columns])).numpy()
    iou, any_iou, met = np.zeros(len(found)), np.zeros(len(found)), np.full(len(found), -1)
    np.maximum.at(any_iou, rows, values)
    same = (found[rows, 6] == true[columns, 5]) & (values > 0)
    rows, columns, values = rows[same], columns[same], values[same]
    np.maximum.at(iou, rows, values)
    best = np.where(values == iou[rows])[0][::-1]  # backwards, so that of equal ones the first stays
    met[rows[best]] = columns[best]
    return Judged(
        found[:, 5], found[:, 6].astype(int), images, places, iou, met, true[:, 5].astype(int), true[:, 6] > 0,
        found[:, :5], true[:, :5], any_iou,
    )  # fmt: skip


TRUE, FALSE, NEITHER, DUPLICATE = 1, 0, -1, 2


def verdicts(judged: Judged, threshold: float) -> np.ndarray:
    """Of each detection TRUE, FALSE, DUPLICATE (false too) or NEITHER (it meets a difficult object): (D,).

    A detection is compared with the one object that it meets best, taken or not; of several that meet one object the
    first is true.
    """
    hits = (judged.truths >= 0) & (judged.iou >= threshold)
    found = np.zeros(len(hits), int)
    hard = hits.copy()
    hard[hits] = judged.difficult[judged.truths[hits]]
    found[hard] = NEITHER
    rest = np.where(hits & ~hard)[0]
    found[rest] = DUPLICATE
    found[rest[np.unique(judged.truths[rest], return_index=True)[1]]] = TRUE
    return found


class Curve(NamedTuple):
    recall: np.ndarray
    precision: np.ndarray


def curve(found: np.ndarray, objects: int) -> Curve:
    """Recall and precision after each detection, the best first, from their verdicts; `objects` not difficult."""
    true, counted = np.cumsum(found == TRUE), np.cumsum(found != NEITHER)
    return Curve(true / max(1, objects), true / np.maximum(1, counted))


def area(points: Curve) -> float:
    """Average precision of VOC 2010 to 2012: the area under the precision made monotone."""
    recall = np.concatenate([[0.0], points.recall, [1.0]])
    precision = np.concatenate([[0.0], points.precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.where(recall[1:] != recall[:-1])[0]
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


def eleven_points(points: Curve) -> float:
    """Average precision of VOC 2007: the mean over recalls 0, 0.1 … 1 of the best precision from there on."""
    found = [points.precision[points.recall >= level].max(initial=0) for level in np.arange(0.0, 1.1, 0.1)]
    return float(np.mean(found))


def class_figures(judged: Judged, threshold: float) -> dict[int, tuple[float, float]]:
    """Of each class that has an object not difficult: its average precision, by area and by eleven points."""
    found, easy = verdicts(judged, threshold), judged.true_classes[~judged.difficult]
    return {
        int(name): (area(points), eleven_points(points))
        for name in np.unique(easy)
        for points in [curve(found[judged.classes == name], int((easy == name).sum()))]
    }


def summary(judged: Judged, names: Sequence[str]) -> dict[str, float]:
    """ap50, ap75, map (0.50 to 0.95), ap50_11pt, ap50_<class>, recall_100, iou_matched_mean and the angle's errors."""
    by_threshold = [class_figures(judged, threshold) for threshold in THRESHOLDS]
    means = [np.mean([both[0] for both in found.values()]) if found else math.nan for found in by_threshold]
    first = by_threshold[0]
    found = {"ap50": means[0], "ap75": means[5], "map": np.mean(means)}
    found["ap50_11pt"] = np.mean([both[1] for both in first.values()]) if first else math.nan
    found |= {f"ap50_{names[place]}": both[0] for place, both in first.items()}
    true = verdicts(judged, 0.5) == TRUE
    found["recall_100"] = true.sum() / max(1, (~judged.difficult).sum())
    errors, directed = angle_errors(judged, true)
    found["iou_matched_mean"] = judged.iou[true].mean() if true.any() else math.nan
    for name, part in (("", errors[directed]), ("_square", errors[~directed])):
        if len(part) or not name:
            found[f"angle_error{name}_median_deg"] = np.median(part) if len(part) else math.nan
    found["angle_error_p95_deg"] = np.percentile(errors[directed], 95) if directed.any() else math.nan
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def angle_errors(judged: Judged, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Degrees between true detections and their objects, modulo 180, and whether the object has one direction; of the
    others, nearly square, modulo 90."""
    truth = judged.true_boxes[judged.truths[true]]
    directed = np.maximum(truth[:, 2], truth[:, 3]) >= SQUARE * np.minimum(truth[:, 2], truth[:, 3])
    turn = judged.boxes[true, 4] - truth[:, 4]
    period = np.where(directed, np.pi, np.pi / 2)
    return np.degrees(np.abs((turn + period / 2) % period - period / 2)), directed


ASPECTS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, math.inf)


def by_aspect(judged: Judged) -> dict[tuple[float, float], tuple[int, float, float]]:
    """For each range of w / h (`ASPECTS`) that has objects: how many, AP50 and AP75, all classes together.

    A detection counts where the object of its class that it meets best belongs; without one, where its own box does.
    """
    sides = [boxes[:, 2:4].max(1, initial=0) / boxes[:, 2:4].min(1, initial=math.inf)
             for boxes in (judged.true_boxes, judged.boxes)]  # fmt: skip
    own = np.where(judged.truths >= 0, np.append(sides[0], 0)[judged.truths], sides[1])
    found = {}
    for low, high in itertools.pairwise(ASPECTS):
        here, objects = (own >= low) & (own < high), (sides[0] >= low) & (sides[0] < high) & ~judged.difficult
        if objects.any():
            areas = [area(curve(verdicts(judged, t)[here], int(objects.sum()))) for t in (0.5, 0.75)]
            found[low, high] = (int(objects.sum()), *areas)
    return found


KINDS = ("right", "poor box", "wrong class", "duplicate", "background", "missed")


def best_of(detections: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each image the best detections, as many as it has objects."""
    return [found[: len(own)] for found, own in zip(detections, truths, strict=True)]


def errors(judged: Judged, threshold: float = 0.5) -> dict[str, int]:
    """How many detections are right, or wrong and how; and how many objects none of them found.

    Poor box: IoU from 0.1 to `threshold` with an object of its class. Wrong class: `threshold` or more with another's.
    """
    found = verdicts(judged, threshold)
    true, false = found == TRUE, found == FALSE
    wrong = false & (judged.any_iou >= threshold)
    poor = false & ~wrong & (judged.iou >= 0.1)
    counts = [true, poor, wrong, found == DUPLICATE, false & ~wrong & ~poor]
    numbers = [int(part.sum()) for part in counts]
    return dict(zip(KINDS, [*numbers, int((~judged.difficult).sum()) - numbers[0]], strict=True))
