"""Conformal calibration: its coverage where scores are exchangeable, and that it looks at nothing unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, kstest, norm

from lightning_modules.forecasting.calibration import (
    quantile,
    rank,
    rolling_calibration,
    running_quantiles,
    split_calibration,
)

SETS = 2000


@pytest.mark.parametrize(("known", "level"), [(19, 0.9), (60, 0.8), (99, 0.95)])
def test_split_conformal_covers_what_it_says(known, level):
    """Over calibration sets the exact coverage is Beta(k, n + 1 − k), k = ⌈(n + 1) level⌉."""
    rng = np.random.default_rng(0)
    bounds = np.array([quantile(np.abs(rng.standard_normal(known)), level) for _ in range(SETS)])
    coverage = 2 * norm.cdf(bounds) - 1
    k = math.ceil((known + 1) * level - 1e-9)
    assert rank(known, level) == k
    error = 4 * coverage.std() / SETS**0.5
    assert level - error <= coverage.mean() <= level + 1 / (known + 1) + error
    assert kstest(coverage, beta(k, known + 1 - k).cdf).pvalue > 0.01


def test_too_few_scores_bound_nothing():
    assert quantile(np.ones(8), 0.9) == math.inf and quantile(np.ones(9), 0.9) == 1
    assert quantile(np.empty(0), 0.5) == math.inf
    found = split_calibration(np.ones((8, 2, 1)), (3, 2, 1), [0.9, 0.5])
    assert np.isinf(found.half_widths[0.9]).all() and (found.half_widths[0.5] == 1).all()


def test_running_quantiles_are_those_of_each_stretch():
    rng = np.random.default_rng(1)
    known, ends = rng.random(120), np.array([0, 3, 30, 50, 99, 120])
    starts = np.maximum(ends - 40, 0)
    found = running_quantiles(known, starts, ends, [0.5, 0.9, 0.99], 40)
    for level, values in found.items():
        expected = [quantile(known[a:b], level) for a, b in zip(starts, ends, strict=True)]
        np.testing.assert_array_equal(values, expected)


def test_a_rolling_interval_knows_nothing_after_its_origin():
    rng = np.random.default_rng(2)
    origins, horizon = np.arange(100, 400), 5
    scores, made_at = rng.random((300, horizon, 2)), np.arange(250, 400)
    first = rolling_calibration(origins, scores, made_at, [0.5, 0.9], 60)
    changed = scores.copy()
    t = 300
    for lead in range(1, horizon + 1):
        changed[origins + lead > t, lead - 1] += 7  # all that comes of values after row t
    second = rolling_calibration(origins, changed, made_at, [0.5, 0.9], 60)
    until = made_at <= t
    np.testing.assert_array_equal(first.factor[until], second.factor[until])
    for level in (0.5, 0.9):
        np.testing.assert_array_equal(first.half_widths[level][until], second.half_widths[level][until])
    assert (first.half_widths[0.9][made_at == t + 1] <= second.half_widths[0.9][made_at == t + 1]).all()
    assert (first.factor[~until] != second.factor[~until]).any(), "what is known at last is used"


def test_rolling_is_the_latest_known_scores():
    rng = np.random.default_rng(3)
    origins, scores = np.arange(50), rng.random((50, 3, 1))
    scores[17, 1, 0] = np.nan
    found = rolling_calibration(origins, scores, np.array([40]), [0.5], 20)
    for lead in range(3):
        known = scores[: 40 - lead, lead, 0]  # of origins up to 40 − (lead + 1)
        known = known[~np.isnan(known)][-20:]
        assert found.factor[0, lead, 0] == pytest.approx(np.sqrt((known**2).mean()))
        assert found.half_widths[0.5][0, lead, 0] == quantile(known, 0.5)
