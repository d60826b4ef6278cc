"""Conformal calibration: what the errors of forecasts whose outcome is known say of the next one's.

A score is |y − μ|/√V, of each lead and target by itself. `split` takes the scores of the validation part, once.
`rolling` takes, for a forecast made at t, the latest scores known at t: of lead h those of forecasts made up to t − h.
The guarantee of coverage needs scores that are exchangeable; those of a series, and of windows that overlap, are not.
(Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Calibrated(NamedTuple):
    """For each test forecast: by what √V is multiplied to be the errors' size, (N, H, targets), and for each level the
    half width of the interval in √V, infinite where too few scores are known."""

    factor: np.ndarray
    half_widths: dict[float, np.ndarray]


def rank(scores: int, level: float) -> int:
    """Which of so many scores in order bounds the next with a probability of at least `level`: ⌈(n + 1) level⌉; one
    that is more than n stands for no bound."""
    return math.ceil(round((scores + 1) * level, 9))


def quantile(scores: np.ndarray, level: float) -> float:
    """The bound on the next score; infinite where there are too few."""
    k = rank(len(scores), level)
    return float(np.partition(scores, k - 1)[k - 1]) if k <= len(scores) else math.inf


def split_calibration(scores: np.ndarray, shape: Sequence[int], levels: Sequence[float]) -> Calibrated:
    """The same for every forecast of `shape` (N, H, targets).

    Args:
        scores: of the validation part (M, H, targets), NaN where the target is missing.
    """
    factor = np.empty(shape)
    half_widths = {level: np.empty(shape) for level in levels}
    for place in np.ndindex(*shape[1:]):
        known = there(scores[(slice(None), *place)])
        own = (slice(None), *place)
        factor[own] = rms(known)
        for level in levels:
            half_widths[level][own] = quantile(known, level)
    return Calibrated(factor, half_widths)


def rolling_calibration(
    origins: np.ndarray,
    scores: np.ndarray,
    made_at: np.ndarray,
    levels: Sequence[float],
    window: int,
) -> Calibrated:
    """From the latest `window` scores known when each forecast is made.

    Args:
        origins: rows at which all forecasts were made, growing (M,); the value of lead h is known at row origin + h.
        scores: of these (M, H, targets), NaN where the target is missing.
        made_at: rows at which the forecasts to be calibrated are made (N,).
    """
    shape = (len(made_at), *scores.shape[1:])
    factor = np.empty(shape)
    half_widths = {level: np.empty(shape) for level in levels}
    for lead, target in np.ndindex(*shape[1:]):
        column = scores[:, lead, target]
        kept = ~np.isnan(column)
        known, times = column[kept], origins[kept] + lead + 1
        ends = np.searchsorted(times, made_at, side="right")  # so many are known
        starts = np.maximum(ends - window, 0)
        sums = np.concatenate([[0.0], np.cumsum(known**2)])
        with np.errstate(invalid="ignore", divide="ignore"):
            factor[:, lead, target] = np.sqrt(np.maximum(sums[ends] - sums[starts], 0) / (ends - starts))
        for level, found in running_quantiles(known, starts, ends, levels, window).items():
            half_widths[level][:, lead, target] = found
    return Calibrated(np.where(factor > 0, factor, 1.0), half_widths)


def running_quantiles(
    known: np.ndarray, starts: np.ndarray, ends: np.ndarray, levels: Sequence[float], window: int
) -> dict[float, np.ndarray]:
    """For each level the `quantile` of known[start:end], for each start and end."""
    found = {level: np.empty(len(ends)) for level in levels}
    full = ends - starts == window
    if full.any():
        views = np.lib.stride_tricks.sliding_window_view(known, window)[starts[full]]
        ranks = {level: rank(window, level) for level in levels}
        possible = sorted({k - 1 for k in ranks.values() if k <= window})
        ordered = np.partition(views, possible, axis=1) if possible else views
        for level, k in ranks.items():
            found[level][full] = ordered[:, k - 1] if k <= window else math.inf
    for number in np.flatnonzero(~full):
        for level in levels:
            found[level][number] = quantile(known[starts[number] : ends[number]], level)
    return found


def there(scores: np.ndarray) -> np.ndarray:
    return scores[~np.isnan(scores)]


def rms(scores: np.ndarray) -> float:
    """Their root mean square; 1 without any, or where all are 0."""
    size = math.sqrt(np.square(scores).mean()) if len(scores) else 1.0
    return size or 1.0
