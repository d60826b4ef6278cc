"""Figures from predictions, against counts made by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_modules.classification.analysis import (
    BINS,
    class_figures,
    confident_mistakes,
    confusions,
    reliability,
)
from lightning_modules.classification.figures import mosaic

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, right about half the time; class d is never named."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[labels] - [0, 0, 0, 50]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def test_figures_by_class_are_scikit_learns(made_up):
    labels, probabilities = made_up
    rows = class_figures(labels, probabilities, NAMES)
    assert [row.name for row in rows] == [*NAMES, "macro average", "weighted average"]
    predicted = probabilities.argmax(1)
    expected = precision_recall_fscore_support(labels, predicted, zero_division=0)
    np.testing.assert_allclose([row[1:] for row in rows[:4]], np.stack(expected, 1), rtol=1e-6)
    for row, average in zip(rows[4:], ("macro", "weighted"), strict=True):
        expected = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[:3]
        np.testing.assert_allclose(row[1:4], expected, rtol=1e-6)
        assert row.support == 300


def test_confusions_are_counted_by_class_and_prediction(made_up):
    labels, probabilities = made_up
    found = confusions(labels, probabilities)
    np.testing.assert_array_equal(found, confusion_matrix(labels, probabilities.argmax(1), labels=range(4)))
    assert found.sum() == 300 and not found[:, 3].any()


def test_mistakes_come_surest_first_and_are_mistakes(made_up):
    labels, probabilities = made_up
    found = confident_mistakes(labels, probabilities, 10)
    confidence = probabilities[found].max(1)
    assert len(found) == 10 and (np.diff(confidence) <= 0).all()
    wrong = probabilities.argmax(1) != labels
    assert wrong[found].all() and (probabilities[wrong].max(1) <= confidence[-1]).sum() == wrong.sum() - 9
    assert len(confident_mistakes(probabilities.argmax(1), probabilities, 10)) == 0


def test_calibration_error_is_torchmetrics_and_bins_hold_every_image(made_up):
    labels, probabilities = made_up
    found = reliability(labels, probabilities)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), 4, n_bins=BINS)
    assert found.error == pytest.approx(expected.item(), rel=1e-5)
    assert found.counts.sum() == 300 and np.isnan(found.accuracy[found.counts == 0]).all()


def test_calibration_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    found = reliability(np.array([0, 1, 1, 0]), probabilities)
    assert found.error == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1) + 0) / 4)
    assert found.counts[-1] == 1 and found.accuracy[-1] == 1


def test_the_strongest_maps_are_shown_scaled_to_their_own_maximum():
    maps = np.zeros((20, 5, 3))
    maps[7], maps[3, 0, 0] = 2.0, 10.0  # everywhere, and in one corner
    grid = mosaic(maps)
    assert grid.shape == (4 * 6 + 1, 4 * 4 + 1)
    np.testing.assert_array_equal(grid[1:6, 1:4], np.ones((5, 3)))
    assert grid[1, 5] == 1 and grid[2:6, 5:8].max() == 0 and np.isnan(grid[0]).all()


def test_few_maps_leave_the_rest_white():
    assert np.isnan(mosaic(np.ones((2, 8, 8)))[:, 19:]).all()
