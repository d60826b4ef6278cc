"""Are two settings different, or is it the seeds? Intervals and Welch's test, corrected for how many were made."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import stdtr, stdtrit


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """The unbiased estimate; needs two values."""
    middle = mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)


def half_interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of the mean's confidence interval by Student's t; NaN for one value, which cannot tell."""
    if len(values) < 2:
        return math.nan
    return float(stdtrit(len(values) - 1, (1 + level) / 2)) * math.sqrt(variance(values) / len(values))


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p-value of Welch's test that the means are equal; needs two values on each side.

    Without any spread it is 0, or 1 when the means are the same.
    """
    parts = [variance(values) / len(values) for values in (first, second)]
    difference, squared = mean(first) - mean(second), sum(parts)
    if squared == 0:
        return float(difference == 0)
    freedom = squared**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return 2 * float(stdtr(freedom, -abs(difference) / math.sqrt(squared)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given: compare each with the level wanted of them all together."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
