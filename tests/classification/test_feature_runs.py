"""Runs of the stages on features."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.classification.transfer.shots import ShotSettings, first_of_each, read_shots
from reporting.load import load_run
from reporting.predictions import read_predictions
from tests.classification.few import fewer_digits
from tests.conftest import run_here

PUBLISHED = "published=[{source: a book, name: a net, data: digits, split: test, figures: {accuracy: 0.5}}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patched:
        fewer_digits(patched, 3)
        run_here(["task=classification", "model=covid_cnn", "model.widths=[8,16]", "data=digits",
              "trainer.precision=32-true", "stages=[features,probe,svm,shots,report]", "svm.C=[3.0,10.0]",
              "svm.gamma=[0.25,1.0]", "probe.C=[0.1,1.0]", "svm.folds=3", "svm.outer_folds=3",
              "probe.folds=3", "probe.nested=false", "shots.numbers=[3,12,9999]", "shots.draws=2", PUBLISHED,
              f"paths.cache={folder / 'cache'}"], folder / "run")  # fmt: skip
    return folder / "run"


def test_a_run_of_stages_alone_leaves_figures_a_grid_and_a_report(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["svm/test/accuracy"] > 0.8 and metrics["svm/disagreements"] == 0
    assert metrics["svm/cv/images"] == 599 and 0 < metrics["svm/cv/accuracy_sd"] < 0.1
    rows = list(csv.DictReader((run / "cv_results.csv").open()))
    points = [(float(row["C"]), float(row["gamma"])) for row in rows]
    assert sorted(points) == [(3.0, 0.25), (3.0, 1.0), (10.0, 0.25), (10.0, 1.0)]
    kept = read_predictions(run, "svm_predictions.npz")
    assert (kept["probabilities"].argmax(1) == kept["label"]).mean() == pytest.approx(metrics["svm/test/accuracy"])
    report = (run / "report.md").read_text()
    for section in ("Support vectors on features", "Logistic regression on features", "Classes", "Confusion matrix",
                    "Features in two directions", "How many images a class it needs"):  # fmt: skip
        assert f"\n## {section}\n" in report
    assert "| test | 50.00% |  | a net: a book |" in report
    assert "The chosen C and gamma lie at an end of the grid: a wider one (svm.C, svm.gamma) may do better." in report
    assert {"features.png", "shots.png", "svm_grid.png"} <= {path.name for path in (run / "figures").iterdir()}


def test_accuracy_is_told_for_fewer_images_a_class(run):
    metrics, found = json.loads((run / "metrics.json").read_text()), read_shots(run / "shots.csv")
    assert [shot.number for shot in found if shot.machine == "svm"][:4] == [3, 3, 12, 12]
    assert found[0].accuracy != found[1].accuracy, "another draw is of other images"
    for name in ("probe", "svm"):  # the last point is the stage's own figure
        assert metrics[f"shots/{name}/accuracy_all"] == metrics[f"{name}/test/accuracy"]
        assert metrics[f"shots/{name}/accuracy_3"] < metrics[f"shots/{name}/accuracy_12"]


def test_fewer_images_are_among_more_and_classes_equal():
    labels = np.random.default_rng(0).integers(0, 3, 200)
    before: set[int] = set()
    for number in (2, 5, 40):
        rows = first_of_each(labels, number, draw=1)
        assert before <= set(rows.tolist()) and np.bincount(labels[rows]).tolist() == [number] * 3
        before = set(rows.tolist())
    for options, said in [({"numbers": [1]}, "2 or more"), ({"draws": 0}, "shots.draws is 0")]:
        with pytest.raises(UsageError, match=said):
            ShotSettings(**options)


def test_a_trained_head_is_all_that_changed_and_the_run_comes_back(tmp_path, monkeypatch):
    fewer_digits(monkeypatch, 6)
    words = ["task=classification", "model=efficientnet_lite0", "model.size=32", "model.weights=none", "debug=quick",
             "model.train=head", "model.frozen_norms=true", "model.head_init=probe", "features.layers=[head]",
             "probe.C=[0.01]", "probe.folds=2", "trainer.precision=32-true",
             f"paths.cache={tmp_path / 'cache'}"]  # fmt: skip
    run_here(words, tmp_path / "run")
    network, _, _ = load_run(tmp_path / "run")
    torch.manual_seed(0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["parameters"] == 1280 * 10 + 10
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()
            assert module.num_batches_tracked == 0
    with pytest.raises(UsageError, match=r"features\.layers=\[head\]"):
        run_here([word for word in words if not word.startswith("features")], tmp_path / "other")
