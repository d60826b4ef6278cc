"""RESULTS.md says what the kept runs say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lightning_modules.classification import Classification
from reporting.published import Figure
from reporting.results import REPOSITORY, all_published, kept_runs, published_row, results_page


def test_the_page_is_the_one_made_from_the_kept_runs():
    page = (REPOSITORY / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results_page(REPOSITORY / "results"), "run `python -m reporting.results`"


def test_every_published_figure_is_there():
    """A figure of each of the tables, with ours or without."""
    page = (REPOSITORY / "RESULTS.md").read_text(encoding="utf-8")
    ours, difference = re.search(
        r"\| Diagonal BiLSTM \| test bits/dim \| 3 \| ([\d.]+) \| (\+[\d.]+) \| pixelrnn/cifar10", page
    ).groups()
    assert float(difference) == pytest.approx(float(ours) - 3)
    assert "| Row LSTM, 12 layers | test bits/dim | 3.06 | not run |" in page
    assert "| Diagonal BiLSTM, 1 layer, h = 32 | test nats/image | 80.75 | not run |" in page
    assert "test precision airplane | 0.8831 | 0." in page
    section = page.split("## Published figures")[1].split("## Commands")[0]
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| ") and "| theirs |" not in row]
    values = {float(row[2]) for row in rows}
    everything = {figure.value for figure in all_published()}
    assert everything <= values
    spec = {7.8994, 7.3342, 7.1786, 3.14, 3.07, 2.93, 81.3, 79.2, 0.8197, 0.3786, 0.7256, 0.7913, 5.04, 1.44, 11.2}
    assert spec <= everything


def test_beside_a_published_figure_stands_the_run_that_is_best_on_validation_data():
    """Also of a metric that only the test split has, where the highest is best as where the lowest is."""

    def run(name: str, task: str, **metrics: float):
        return name, {"choices": {"task": task, "data": "mnist"}}, metrics

    figure = Figure("somebody", "mnist", "test/f1/cat", 0.5, "a book", ("data=mnist",))
    runs = [run(n, "classification", **{"val/accuracy": v, "test/f1/cat": 0.9}) for n, v in (("a", 0.7), ("b", 0.8))]
    assert "| 0.9000 | +0.4000 | b |" in published_row(figure, runs)
    runs = [run(n, "pixelrnn", **{"val/bits_per_dim": v, "test/f1/cat": 0.4}) for n, v in (("a", 0.8), ("b", 0.7))]
    assert "| 0.4000 | -0.1000 | b |" in published_row(figure, runs)


def test_a_classifiers_run_is_kept_with_its_classes(tmp_path):
    """Two classes, one of four images wrong: by hand."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    arrays = {"label": np.array([0, 0, 1, 1]), "probabilities": probabilities, "class_names": np.array(["cat", "dog"])}
    figures = Classification.kept_figures(arrays)
    assert figures["test/precision/cat"] == 1.0 and figures["test/recall/cat"] == 0.5
    assert figures["test/precision/dog"] == 0.6667 and len(figures) == 6


def test_every_kept_run_names_a_clean_commit():
    runs = kept_runs(REPOSITORY / "results")
    assert runs
    for name, config, _ in runs:
        commit = config["provenance"]["commit"]
        assert commit != "unknown" and not commit.endswith("+"), name
