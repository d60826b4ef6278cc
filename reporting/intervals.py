"""How sure a figure of test items is: bootstrap intervals of any figure, DeLong's of the area under a ROC curve.

Positives are items whose label is true; a score is larger for what looks positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from datamodules.errors import UsageError

RESAMPLES = 2000
NOT_ESTIMABLE = "interval not estimable"


class Interval(NamedTuple):
    """A figure and the ends of its interval, NaN where it cannot be estimated.

    `redrawn` resamples held one class only and were drawn again.
    """

    value: float
    low: float
    high: float
    redrawn: int = 0

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.4f} ({NOT_ESTIMABLE})"
        return f"{self.value:.4f} ({self.low:.4f} … {self.high:.4f})"


class Difference(NamedTuple):
    """A figure of one network less another's, on the same items; z and two-sided p of its being 0."""

    value: float
    z: float
    p: float


def bootstrap(
    figure: Callable[..., float],
    *arrays: np.ndarray,
    classes: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The percentile interval of `figure(*arrays)` from resamples of the items, with replacement.

    Two networks are compared in pairs: `bootstrap(lambda y, a, b: auc(y, a) - auc(y, b), labels, first, second)`.

    Args:
        figure: of arrays that are indexed alike.
        arrays: each (N, …).
        classes: labels (N,) of which a resample must hold two; one that does not is drawn again. None: any will do.
        groups: (N,) of items that belong together, say of one patient: whole groups are drawn. None: items.

    Raises:
        UsageError: there are no items, or `classes` holds one class only.
    """
    if not (items := len(arrays[0])):
        raise UsageError("There are no test items, and so no figure and no interval.")
    if classes is not None:
        require_two(classes)
    members = members_of(groups)
    rng, found, redrawn = np.random.default_rng(seed), [], 0
    while len(found) < resamples:
        drawn = rng.integers(0, items if members is None else len(members), items if members is None else len(members))
        rows = drawn if members is None else np.concatenate([members[group] for group in drawn])
        if classes is not None and (classes[rows] == classes[rows[0]]).all():
            redrawn += 1
            continue
        found.append(figure(*(array[rows] for array in arrays)))
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(figure(*arrays)), float(low), float(high), redrawn)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` (N,), from `RESAMPLES` samples of N with replacement."""
    found = bootstrap(np.mean, values, seed=seed)
    return found.low, found.high


def members_of(groups: np.ndarray | None) -> list[np.ndarray] | None:
    """The items of each group."""
    if groups is None:
        return None
    _, numbers = np.unique(groups, return_inverse=True)
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])


def require_two(classes: np.ndarray) -> None:
    """Raises UsageError when all items are of one class."""
    if len(np.unique(classes)) < 2:
        raise UsageError("All test items are of one class: a figure that tells two apart is not defined on them.")


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: the chance that a positive item has a higher score than a negative one, ties ½.

    Args:
        labels: (N,), true for positives.
        scores: (N,).

    Raises:
        UsageError: all items are of one class.
    """
    require_two(labels := labels.astype(bool))
    positives, negatives = labels.sum(), (~labels).sum()
    return float((rankdata(scores)[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V10 of each positive, the share of negatives below it, and V01 of each negative, the share of positives above it.

    Ties count ½ (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, equations 4 and 5); by ranks, as Sun & Xu 2014.
    """
    require_two(labels := labels.astype(bool))
    ranks = rankdata(scores)
    above, below = scores[labels], scores[~labels]
    return (
        (ranks[labels] - rankdata(above)) / len(below),
        1 - (ranks[~labels] - rankdata(below)) / len(above),
    )


def covariances(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of the areas of several networks on the same items, from their placements: S10 / m + S01 / n."""
    found = np.zeros((len(parts), len(parts)))
    for columns in zip(*parts, strict=True):
        items = len(columns[0])
        found += (np.atleast_2d(np.cov(columns)) if items > 1 else np.full_like(found, np.nan)) / items
    return found


def delong(labels: np.ndarray, scores: np.ndarray, level: float = 0.95) -> Interval:
    """The area under the ROC curve with DeLong's interval, within [0, 1].

    It is not estimable where the area is 0 or 1, or a class has one item.

    Raises:
        UsageError: all items are of one class.
    """
    found = placements(labels, scores)
    value, variance = float(found[0].mean()), covariances([found])[0, 0]
    if not 0 < value < 1 or math.isnan(variance):
        return Interval(value, math.nan, math.nan)
    half = ndtri((1 + level) / 2) * math.sqrt(variance)
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def delong_difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """The first network's area less the second's, on the same items, with DeLong's z test.

    Without any difference and spread z is 0 and p 1; where a class has one item they are NaN.

    Raises:
        UsageError: all items are of one class.
    """
    parts = [placements(labels, scores) for scores in (first, second)]
    value, s = float(parts[0][0].mean() - parts[1][0].mean()), covariances(parts)
    variance = max(0.0, s[0, 0] + s[1, 1] - 2 * s[0, 1]) if not np.isnan(s).any() else math.nan
    if value == 0 and variance == 0:
        return Difference(0.0, 0.0, 1.0)
    z = math.copysign(math.inf, value) if variance == 0 else value / math.sqrt(variance)
    return Difference(value, z, 2 * float(ndtr(-abs(z))))
