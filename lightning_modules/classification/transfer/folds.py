"""Grids searched inside folds, and folds around the search: nothing that is judged has been fitted to.

Cawley & Talbot 2010, "On Over-fitting in Model Selection and Subsequent Selection Bias in Performance Evaluation": the
best score of a grid is the maximum of noisy means, and no result; that is what the outer folds are for.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from datamodules.errors import UsageError

Point = dict[str, Any]
Folds = list[tuple[np.ndarray, np.ndarray]]


class Machine(Protocol):
    """A classifier on features with a grid of settings. A decision is (N,) of two classes, else (N, K)."""

    def grid(self) -> list[Point]:
        """Its settings, the plainest first."""

    def decisions(self, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        """Fitted to x (n, D) and y (n,) alone: of each point of the grid, the decisions of `others` (m, D)."""

    def fitted(self, x: np.ndarray, y: np.ndarray, point: Point) -> Any:
        """A pipeline with one point's settings, fitted; it has `decision_function` and `predict`."""


class Found(NamedTuple):
    """The grid's best point, each point's accuracies (points, folds), and the best's decisions of every row, each by a
    fit that had not seen it."""

    point: Point
    scores: np.ndarray
    decisions: np.ndarray


class Nested(NamedTuple):
    """Of each outer fold accuracy, balanced accuracy and the point chosen within; the outer decisions of every row."""

    accuracy: np.ndarray
    balanced: np.ndarray
    points: list[Point]
    decisions: np.ndarray


def folds_for(y: np.ndarray, groups: np.ndarray | None, number: int, seed: int) -> Folds:
    """(rows to fit, rows to judge) of each of `number` folds, alike in their classes; no group is on both sides.

    Raises:
        UsageError: a class has fewer images, or groups, than there are folds.
    """
    for label in np.unique(y):
        rows = y == label
        there = rows.sum() if groups is None else len(np.unique(groups[rows]))
        if there < number:
            what = "images" if groups is None else "groups"
            raise UsageError(
                f"A class has {there} {what} to fit to, fewer than {number} folds: take fewer folds (svm.folds, "
                "svm.inner_folds), or more images."
            )
    if groups is None:
        return list(StratifiedKFold(number, shuffle=True, random_state=seed).split(y, y))
    folds = list(StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(y, y, groups))
    for place, (fit, held) in enumerate(folds):
        for side in (fit, held):
            if absent := set(np.unique(y)) - set(np.unique(y[side])):
                raise UsageError(
                    f"Fold {place} has no image of class {min(absent)}: its groups are too large to be divided so; "
                    "take fewer folds."
                )
    return folds


def predicted(decisions: np.ndarray) -> np.ndarray:
    """The class of each decision."""
    return (decisions > 0).astype(np.int64) if decisions.ndim == 1 else decisions.argmax(1)


def search(machine: Machine, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, folds: int, seed: int) -> Found:
    """The point of the best mean balanced accuracy over the folds, of equals the plainest."""
    grid = machine.grid()
    cut = folds_for(y, groups, folds, seed)
    scores, kept = np.zeros((len(grid), folds)), [None] * len(grid)
    for place, (fit, held) in enumerate(cut):
        for number, found in enumerate(machine.decisions(x[fit], y[fit], x[held])):
            scores[number, place] = balanced_accuracy_score(y[held], predicted(found))
            if kept[number] is None:
                kept[number] = np.zeros((len(y), *found.shape[1:]))
            kept[number][held] = found
    best = int(np.argmax(scores.mean(1)))
    return Found(grid[best], scores, kept[best])


def nested(
    machine: Machine, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, outer: int, inner: int, seed: int
) -> Nested:
    """Each outer fold judged by what was chosen and fitted in the others; inner folds keep groups together too."""
    accuracy, balanced, points, decisions = [], [], [], None
    for fit, held in folds_for(y, groups, outer, seed):
        mine = None if groups is None else groups[fit]
        point = search(machine, x[fit], y[fit], mine, inner, seed).point
        found = machine.fitted(x[fit], y[fit], point).decision_function(x[held])
        decisions = np.zeros((len(y), *found.shape[1:])) if decisions is None else decisions
        decisions[held] = found
        accuracy.append(float((predicted(found) == y[held]).mean()))
        balanced.append(float(balanced_accuracy_score(y[held], predicted(found))))
        points.append(point)
    return Nested(np.array(accuracy), np.array(balanced), points, decisions)


def equal_images(images: np.ndarray) -> np.ndarray | None:
    """A number for each image (N,), the same for pixel-equal ones; None where all differ."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in images]
    numbers = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    return None if len(numbers) == len(digests) else np.array([numbers[digest] for digest in digests])
