"""What a classifier's predictions say: figures by class, confusions, calibration, its most confident mistakes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torchmetrics.functional import classification as F

BINS = 15  # of the calibration error, as in Guo et al. 2017, arXiv 1706.04599


class ClassFigures(NamedTuple):
    """Precision, recall, F1 and test images of each class, or of an average over the classes."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def class_figures(labels: np.ndarray, probabilities: np.ndarray, names: list[str]) -> list[ClassFigures]:
    """A row for each class, then the macro average (all classes count alike) and the weighted one (by their images).

    Args:
        labels: integers (N,).
        probabilities: (N, classes).
        names: of the classes.
    """
    predicted, target = torch.from_numpy(probabilities), torch.from_numpy(labels)
    measures = (F.multiclass_precision, F.multiclass_recall, F.multiclass_f1_score)

    def columns(average: str | None) -> list[np.ndarray]:
        return [np.atleast_1d(m(predicted, target, len(names), average=average).double().numpy()) for m in measures]

    support = np.bincount(labels, minlength=len(names))
    rows = [ClassFigures(*row) for row in zip(names, *columns(None), support, strict=True)]
    averages = {"macro average": "macro", "weighted average": "weighted"}
    return rows + [
        ClassFigures(name, *(column[0] for column in columns(average)), int(support.sum()))
        for name, average in averages.items()
    ]


def confusions(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many images of each class (row) were taken for each class (column)."""
    classes = probabilities.shape[1]
    pairs = labels * classes + probabilities.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def confident_mistakes(labels: np.ndarray, probabilities: np.ndarray, most: int) -> np.ndarray:
    """The images that were taken for something else, the surest first: their numbers."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:most]


class Reliability(NamedTuple):
    """Of each of `BINS` equal intervals of confidence: images in it, their mean confidence, the share that is right."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, over images."""
        filled = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """How sure the classifier was, against how often it was right; empty intervals hold NaN."""
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            counts,
            np.bincount(bins, confidence, BINS) / counts,
            np.bincount(bins, right, BINS) / counts,
        )
