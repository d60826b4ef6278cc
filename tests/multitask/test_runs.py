"""A run's figures and report, and the weighted sampler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.images.digit_shapes import DigitShapes
from tests.conftest import run_here

SMALL = ["task=multitask", "model.widths=[6]", "model.hidden=8", "trainer.max_epochs=2", "trainer.precision=32-true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    figures = "figures: {group_accuracy: 0.6}"
    words = [
        *SMALL,
        f"published=[{{source: a book, data: digit_shapes, split: test, {figures}}}]",
    ]
    run_here(words, folder)
    return folder


def test_figures_agree_with_the_predictions(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), np.load(run / "predictions.npz")
    data = DigitShapes()
    for level in ("fine", "super", "group"):
        right = kept[f"{level}_probabilities"].argmax(1) == kept[f"{level}_label"]
        assert metrics[f"test/{level}_accuracy"] == pytest.approx(right.mean()) and len(right) == 360
    taken, label = kept["fine_probabilities"].argmax(1), kept["fine_label"]
    assert (kept["group_label"] == np.array(data.hierarchy.groups)[label]).all()
    wrong = taken != label
    severity = (wrong * 1) + (np.array(data.hierarchy.supers)[taken] != np.array(data.hierarchy.supers)[label])
    severity += np.array(data.hierarchy.groups)[taken] != np.array(data.hierarchy.groups)[label]
    assert (kept["severity"] == severity).all() and wrong.any()
    assert metrics["test/mistake_severity"] == pytest.approx(severity[wrong].mean())
    chosen = [kept[f"{n}_probabilities"][np.arange(360), kept[f"{n}_label"]] for n in ("fine", "super", "group")]
    assert metrics["test/loss"] == pytest.approx(-np.log(chosen).mean(1).sum(), rel=1e-4)


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for title in ("Accuracy", "How severe the mistakes are", "Group confusions", "Groups", "Curves"):
        assert f"## {title}\n" in text
    assert "| test |  |  | 60.00% | | a book |" in text and "mistakes count [1.0, 2.0, 3.0]" in text
    assert "| closed | loops only, loop and tail | 0, 6, 8, 9 |" in text
    assert (run / "figures/groups.png").exists() and (run / "figures/mistakes.png").exists()


def test_the_sampler_draws_every_group_as_often():
    shares = {}
    for balance in ("none", "group", "super", "fine"):
        data = DigitShapes(balance=balance)
        data.prepare_data()
        loader = data.train_dataloader()
        drawn = []
        for epoch in range(8):
            loader.sampler.set_epoch(epoch)
            drawn.append(np.concatenate([labels.numpy() for _, labels in loader]))
        assert all(len(epoch) == 1293 for epoch in drawn) and (drawn[0] != drawn[1]).any()
        shares[balance] = np.bincount(np.array(data.hierarchy.groups)[np.concatenate(drawn)]) / (8 * 1293)
    noise = 4 * 0.5 / (8 * 1293) ** 0.5
    assert abs(shares["group"] - [0.5, 0.5]).max() < noise and abs(shares["super"] - [0.5, 0.5]).max() < noise
    assert abs(shares["fine"] - [0.4, 0.6]).max() < noise
    labels = data.splits["train"].labels
    assert shares["none"] == pytest.approx(np.bincount(np.array(data.hierarchy.groups)[labels]) / 1293)
