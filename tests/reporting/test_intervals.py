"""Bootstrap intervals and DeLong's, against brute force and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from datamodules.errors import UsageError
from reporting.intervals import auc, bootstrap, delong, delong_difference, placements


def scored(items: int = 60, seed: int = 0, ties: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two networks' scores, of few values so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, items)
    first, second = (np.round(ties * (rng.normal(size=items) + labels)) / ties for _ in range(2))
    return labels, first, second


def psi(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


@pytest.mark.parametrize("ties", [1, 7, 10**6])
def test_the_area_is_mann_whitneys(ties):
    labels, scores, _ = scored(ties=ties)
    pairs = [psi(x, y) for x in scores[labels == 1] for y in scores[labels == 0]]
    assert auc(labels, scores) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert auc(1 - labels, scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)


def brute(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    above, below = scores[labels == 1], scores[labels == 0]
    v10 = np.array([np.mean([psi(x, y) for y in below]) for x in above])
    return v10, np.array([np.mean([psi(x, y) for x in above]) for y in below])


def test_delong_equals_brute_force_over_pairs():
    labels, first, second = scored()
    for scores in (first, second):
        for ours, theirs in zip(placements(labels, scores), brute(labels, scores), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    v10, v01 = brute(labels, first)
    variance = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    found = delong(labels, first)
    assert found.value == pytest.approx(roc_auc_score(labels, first), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 1.959963984540054 * math.sqrt(variance), abs=1e-12)
    w10, w01 = brute(labels, second)
    gap = (v10 - w10).var(ddof=1) / len(v10) + (v01 - w01).var(ddof=1) / len(v01)
    tested = delong_difference(labels, first, second)
    assert tested.z == pytest.approx((v10.mean() - w10.mean()) / math.sqrt(gap), rel=1e-9)
    assert tested.p == pytest.approx(2 * ndtr(-abs(tested.z)))


def test_two_networks_test_is_antisymmetric_and_0_for_equal_scores():
    labels, first, second = scored(seed=3)
    one, other = delong_difference(labels, first, second), delong_difference(labels, second, first)
    assert (one.value, one.z) == pytest.approx((-other.value, -other.z)) and one.p == pytest.approx(other.p)
    assert delong_difference(labels, first, first) == (0.0, 0.0, 1.0)
    assert delong_difference(labels, labels, labels) == (0.0, 0.0, 1.0)


def test_what_delong_cannot_estimate_is_said():
    labels = np.array([0, 0, 1, 1])
    assert math.isnan(delong(labels, labels).low) and delong(labels, labels).value == 1
    assert str(delong(labels, labels)) == "1.0000 (interval not estimable)"
    assert math.isnan(delong(labels, -labels).low) and delong(labels, -labels).value == 0
    assert math.isnan(delong(np.array([0, 0, 0, 1]), np.array([1, 2, 4, 3])).low)
    near = delong(*scored(items=8, seed=1)[:2])
    assert 0 <= near.low <= near.value <= near.high <= 1


@pytest.mark.parametrize("figure", [auc, delong, lambda y, s: bootstrap(auc, y, s, classes=y)])
def test_one_class_alone_is_a_sentence(figure):
    with pytest.raises(UsageError, match="All test items are of one class"):
        figure(np.ones(5, int), np.arange(5))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth, by_pairs, by_items = ndtr(1 / math.sqrt(2)), 0, 0
    for seed in range(100):
        labels, scores, _ = scored(items=80, seed=seed, ties=10**6)
        found = delong(labels, scores), bootstrap(auc, labels, scores, classes=labels, resamples=200, seed=seed)
        by_pairs += found[0].low <= truth <= found[0].high
        by_items += found[1].low <= truth <= found[1].high
    assert by_pairs >= 86 and by_items >= 86  # of 100; four standard deviations below 95


def test_a_resample_of_one_class_is_drawn_again_and_counted():
    labels, scores = np.array([1, *[0] * 7]), np.arange(8)
    found = bootstrap(auc, labels, scores, classes=labels)
    # A resample misses the positive with probability (7/8)^8 = 0.344: so many are drawn again for each that is kept.
    assert found.redrawn == pytest.approx(2000 * 0.344 / 0.656, rel=0.15)
    assert bootstrap(auc, labels, scores, classes=labels) == found, "the same seed, the same interval"
    assert bootstrap(np.mean, scores).redrawn == 0


def test_groups_are_drawn_whole():
    groups = np.repeat(np.arange(30), 10)
    values = np.random.default_rng(0).normal(size=30)[groups]  # ten copies of each of 30
    by_items, by_groups = bootstrap(np.mean, values), bootstrap(np.mean, values, groups=groups)
    ratio = (by_groups.high - by_groups.low) / (by_items.high - by_items.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.15)
    shuffled = np.random.default_rng(1).permutation(300)
    seen = []
    bootstrap(lambda v, g: seen.append(np.bincount(g, minlength=30)) or 0.0, values[shuffled], groups[shuffled],
              groups=groups[shuffled], resamples=20)  # fmt: skip
    assert all((counts % 10 == 0).all() and counts.sum() == 300 for counts in seen)


def test_pairs_narrow_the_interval_of_a_difference():
    labels, first, _ = scored(items=200)
    second = first + 0.05 * np.random.default_rng(5).normal(size=200)
    gap = bootstrap(lambda y, a, b: auc(y, a) - auc(y, b), labels, first, second, classes=labels, resamples=300)
    alone = bootstrap(auc, labels, first, classes=labels, resamples=300)
    assert gap.high - gap.low < 0.3 * (alone.high - alone.low) and gap.low <= gap.value <= gap.high
