"""Two classes: thresholds by brute force, and figures that follow their definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_modules.classification.binary import at_specificity, binary_figures, called, youden
from reporting.predictions import read_predictions
from tests.conftest import run_here


def drawn(items: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(items) < 0.4
    return labels, np.round(rng.standard_normal(items) + labels, 1)  # with ties


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_the_best_there_are(seed):
    labels, scores = drawn(seed=seed)
    tried = [called(labels, scores, cut) for cut in np.linspace(-5, 5, 2001)]
    best = called(labels, scores, youden(labels, scores))
    assert best.sensitivity + best.specificity == pytest.approx(max(c.sensitivity + c.specificity for c in tried))
    assert not np.isclose(scores, youden(labels, scores)).any()  # between scores, on none
    strict = called(labels, scores, at_specificity(labels, scores))
    assert strict.specificity >= 0.9
    assert strict.sensitivity == pytest.approx(max(c.sensitivity for c in tried if c.specificity >= 0.9))


def test_where_neighbouring_thresholds_tie_their_middle_is_taken():
    labels = np.array([0, 0, 1, 0, 1, 1], bool)
    assert youden(labels, np.array([0.0, 1, 2, 3, 4, 5])) == 3.5  # J is 2/3 at 1.5 and at 3.5: the first of them
    E = youden(np.array([0, 0, 1, 1], bool), np.array([0.0, 1, 5, 6]))
    assert E == 3.0


def test_figures_follow_their_definitions():
    labels, scores = drawn(200)
    val = drawn(100, seed=9)
    shares = expit(scores)
    found = binary_figures(labels, scores, shares, val, cut=0.0, prior=-0.4)
    assert found["auc_roc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["auc_pr"] == pytest.approx(average_precision_score(labels, scores))
    assert found["brier"] == pytest.approx(np.mean((shares - labels) ** 2))
    assert found["brier_with_prior"] == pytest.approx(np.mean((expit(logit(shares) - 0.4) - labels) ** 2))
    assert found["threshold"] == youden(*val)
    assert found["accuracy_at_threshold"] == np.mean((scores >= youden(*val)) == labels)
    assert found["sensitivity"] == np.mean(scores[labels] >= 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marked")
    run_here(["task=classification", "model=covid_cnn", "model.widths=[4,8]", "data=digits_marked", "data.mark=none",
              "trainer.max_epochs=2", "trainer.precision=32-true", "task.module.class_weights=balanced",
              "stages=[fit,test,probe,report]", "probe.C=[0.1]", "probe.nested=false",
              f"paths.cache={folder / 'cache'}"], folder / "run")  # fmt: skip
    return folder / "run"


def test_a_run_on_two_classes_has_its_threshold_from_validation_images(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), read_predictions(run)
    positive = kept["probabilities"][:, 1] >= metrics["test/threshold"]
    assert metrics["test/accuracy_at_threshold"] == pytest.approx((positive == kept["label"]).mean(), abs=0.01)
    assert metrics["test/auc_roc"] == pytest.approx(roc_auc_score(kept["label"], kept["score"]))
    assert {"test/brier_with_prior", "test/calibration_error_with_prior", "probe/test/threshold"} <= metrics.keys()
    assert metrics["probe/train/images"] == 1797 - 360 - 144  # no validation image where a threshold is read from them
    report = (run / "report.md").read_text()
    assert "Is it 5 to 9?" in report and "DeLong" in report and "Where it looks" in report
    assert all((run / "figures" / f"{name}.png").exists() for name in ("two_classes", "scores", "grad_cam"))
