"""Support vectors: the grid's short way is the long one, and what is kept decides alike."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC

from datamodules.errors import UsageError
from lightning_modules.classification.transfer.folds import folds_for, predicted, search
from lightning_modules.classification.transfer.kept_svm import KeptSVM, find_temperature, probabilities
from lightning_modules.classification.transfer.machines import (
    Probe,
    SupportVectors,
    VarianceSVC,
    gamma_of,
)
from tests.classification.few import blobs


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("pca", [None, 3])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_precomputed_search_is_the_plain_one(classes, pca, kernel):
    x, y = blobs(classes, 30, apart=0.7)
    machine = SupportVectors(C=[0.3, 3.0], gamma=[0.25, 1.0], pca=pca, kernel=kernel, class_weight="balanced")
    fit, held = folds_for(y, None, 3, 0)[0]
    own = machine.decisions(x[fit], y[fit], x[held])
    for point, decisions in zip(machine.grid(), own, strict=True):
        plain = machine.fitted(x[fit], y[fit], point)
        np.testing.assert_allclose(decisions, plain.decision_function(x[held]), atol=1e-3)
        np.testing.assert_array_equal(predicted(decisions), plain.predict(x[held]))
    found = search(machine, x, y, None, 3, 0)
    folds = folds_for(y, None, 3, 0)
    best = [balanced_accuracy_score(y[h], machine.fitted(x[f], y[f], found.point).predict(x[h])) for f, h in folds]
    assert np.mean(best) == pytest.approx(found.scores.mean(1).max())


def test_gamma_is_by_the_variance_of_what_is_fitted():
    x, y = blobs(2, 30)
    machine = VarianceSVC(multiple=0.25).fit(3 * x, y)
    assert machine.gamma == pytest.approx(0.25 / (9 * x.var(0).sum())) == gamma_of(3 * x, 0.25)
    plain = SVC(gamma=1 / x.var(0).sum()).fit(x, y)
    np.testing.assert_allclose(
        VarianceSVC(multiple=1.0).fit(x, y).decision_function(x), plain.decision_function(x), rtol=1e-4
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("pca", [None, 4])
def test_a_kept_svm_decides_as_scikit_learns_does(classes, pca, tmp_path):
    x, y = blobs(classes, 20, apart=0.5)
    machine = SupportVectors(pca=pca)
    pipeline = machine.fitted(x, y + 5, {"C": 3.0, "gamma": 1.0})
    KeptSVM.of(pipeline, 0.7).save(tmp_path)
    kept = KeptSVM.load(tmp_path)
    others = blobs(classes, 50, apart=0.5, seed=1)[0]
    np.testing.assert_allclose(kept.decisions(others), pipeline.decision_function(others), atol=1e-6)
    np.testing.assert_array_equal(kept.predict(others), pipeline.predict(others))
    assert (kept.classes[kept.probabilities(others).argmax(1)] == kept.predict(others)).all()


def test_a_three_way_tie_of_votes_is_decided_as_scikit_learn_does(tmp_path):
    """Three classes, each winning one pair: the votes of many points between them are 1, 1, 1."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)), np.arange(60) % 3
    pipeline = SupportVectors().fitted(x, y, {"C": 30.0, "gamma": 1.0})
    kept, others = KeptSVM.of(pipeline, 1.0), rng.standard_normal((4000, 2))
    votes = np.round(kept.decisions(others))
    tied = (votes == 1).all(1)
    assert tied.sum() > 5
    np.testing.assert_array_equal(kept.predict(others[tied]), pipeline.predict(others[tied]))


def test_a_file_with_objects_in_it_is_refused(tmp_path):
    x, y = blobs(2, 10)
    kept = KeptSVM.of(SupportVectors().fitted(x, y, {"C": 1.0, "gamma": 1.0}), 1.0)._asdict()
    np.savez(tmp_path / "svm.npz", **(kept | {"classes": np.array([{}, {}], dtype=object)}))
    with pytest.raises(UsageError, match="damaged, or no file of an SVM"):
        KeptSVM.load(tmp_path)
    (tmp_path / "svm.npz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged, or no file of an SVM"):
        KeptSVM.load(tmp_path)


def test_a_wide_kernel_is_a_linear_one():
    """Keerthi & Lin 2003: gamma → 0 with C · gamma fixed; K = 1 − γ‖x − x′‖² + …, of which 2γ x·x′ is left."""
    x, y = blobs(2, 40, apart=0.5)
    x = x.astype(np.float64)
    narrow = SVC(kernel="linear", C=0.1, tol=1e-9).fit(x, y).decision_function(x)
    gamma = 1e-4
    wide = SVC(kernel="rbf", gamma=gamma, C=0.1 / (2 * gamma), tol=1e-9).fit(x, y).decision_function(x)
    np.testing.assert_allclose(wide, narrow, atol=0.02)


def test_the_temperature_mends_what_is_too_sure():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random(4000)[:, None] > shares.cumsum(1)).sum(1)
    assert find_temperature(5 * logits, labels) == pytest.approx(5, rel=0.1)
    binary = (rng.random(4000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(int)
    assert find_temperature(3 * logits[:, 0], binary) == pytest.approx(3, rel=0.15)
    assert ((probabilities(logits[:, 0], 2.0)[:, 1] > 0.5) == (logits[:, 0] > 0)).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SupportVectors(C=[]), r"svm\.C is \[\]"),
        (lambda: SupportVectors(gamma=[0.0]), r"svm\.gamma is \[0\.0\].*above 0"),
        (lambda: Probe(C=[-1.0]), r"probe\.C is \[-1\.0\]"),
        (lambda: Probe(folds=1), r"probe\.folds is 1"),
        (lambda: SupportVectors(kernel="poly"), "choose rbf or linear"),
        (lambda: SupportVectors(pca=1.5), "must be a number of components"),
        (lambda: SupportVectors(pca=90).preparation(60), "svm.pca is 90, but a fold has 60 images"),
        (lambda: SupportVectors().preparation(25_000), r"25,000² numbers .*hours.*stages=\[features,probe\]"),
    ],
)
def test_what_cannot_be_searched_is_said(make, said):
    with pytest.raises(UsageError, match=said):
        make()
