"""A plain transcription of DOTA_devkit's `voc_eval`, and random detections with all that it has rules for."""

from __future__ import annotations

import numpy as np
import torch

from lightning_modules.detection import rotated_iou


def voc_eval(detections, truths, name: int, threshold: float, eleven: bool) -> float:
    """Average precision of one class; detections and truths of each image as `judge` takes them."""
    own = [truth[truth[:, 5] == name] for truth in truths]
    positives = sum(int((truth[:, 6] == 0).sum()) for truth in own)
    rows = [(row[5], image, row) for image, found in enumerate(detections) for row in found if row[6] == name]
    rows = [rows[place] for place in np.argsort([-row[0] for row in rows], kind="stable")]
    true, false = np.zeros(len(rows)), np.zeros(len(rows))
    taken = [[False] * len(truth) for truth in own]
    for place, (_, image, row) in enumerate(rows):
        best, match = -np.inf, None
        for number, truth in enumerate(own[image]):
            iou = rotated_iou(torch.tensor(row[None, :5]), torch.tensor(truth[None, :5])).item()
            if iou > best:
                best, match = iou, number
        if best >= threshold:
            if not own[image][match, 6]:
                if not taken[image][match]:
                    true[place] = 1.0
                    taken[image][match] = True
                else:
                    false[place] = 1.0
        else:
            false[place] = 1.0
    false, true = np.cumsum(false), np.cumsum(true)
    recall, precision = true / positives, true / np.maximum(true + false, np.finfo(np.float64).eps)
    if eleven:
        points = (precision[recall >= level] for level in np.arange(0.0, 1.1, 0.1))
        return sum((part.max() if len(part) else 0) / 11 for part in points)
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    for place in range(precision.size - 1, 0, -1):
        precision[place - 1] = np.maximum(precision[place - 1], precision[place])
    changes = np.where(recall[1:] != recall[:-1])[0]
    return np.sum((recall[changes + 1] - recall[changes]) * precision[changes + 1])


def random_scenes(images: int, seed: int, upright: bool):
    """Detections and truths of some images, with difficult objects, duplicates, ties and misses."""
    rng = np.random.default_rng(seed)
    detections, truths = [], []
    for _ in range(images):
        count = rng.integers(0, 7)
        boxes = np.concatenate([rng.uniform(0, 60, (count, 2)), rng.uniform(8, 30, (count, 2)),
                                rng.uniform(-1.5, 1.5, (count, 1)) * (not upright)], 1)  # fmt: skip
        classes, difficult = rng.integers(0, 3, count), rng.random(count) < 0.25
        truths.append(np.concatenate([boxes, classes[:, None], difficult[:, None]], 1))
        copies = np.repeat(boxes, 3, 0) + rng.normal(0, 1.5, (3 * count, 5)) * [1, 1, 1, 1, 0.1 * (not upright)]
        wild = np.concatenate([rng.uniform(0, 60, (3, 2)), rng.uniform(8, 30, (3, 2)), np.zeros((3, 1))], 1)
        found = np.concatenate([copies, wild])
        scores = rng.integers(1, 10, len(found)) / 10  # ties
        names = np.concatenate([np.repeat(classes, 3), rng.integers(0, 3, 3)])
        found[:, 2:4] = np.maximum(found[:, 2:4], 1)
        detections.append(np.concatenate([found, scores[:, None], names[:, None]], 1))
    return detections, truths
