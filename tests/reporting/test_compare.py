"""Runs side by side: the same items or a refusal, paired differences, one page."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.tools import run_tool
from reporting.compare import differing_settings, main, names, read_runs
from reporting.intervals import mean_interval
from tests.conftest import run_here

WORDS = ["task=classification", "model.filters=4", "model.depth=3", "patience=null", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    run_here(WORDS, folders[0])
    run_here([*WORDS, "optimizer.lr=0.03", "seed=1"], folders[1])
    return folders


def table_after(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    table = re.search(f"<h2>{heading}</h2>.*?<table>(.*?)</table>", page, re.S)[1]
    rows = re.findall("<tr>(.*?)</tr>", table, re.S)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", row, re.S)] for row in rows]


def test_the_page_shows_what_differs_and_by_how_much(two_runs, tmp_path):
    page = main([*map(str, two_runs), "--output", str(tmp_path / "deep/page.html")]).read_text()
    settings = {row[0]: row[1:] for row in table_after(page, "What differs")}
    assert settings["optimizer.lr"] == ["0.003", "0.03"] and settings["seed"] == ["0", "1"]
    assert "model.filters" not in settings and settings["setting"] == ["cnn 1", "cnn 2"]
    kept = [np.load(folder / "predictions.npz") for folder in two_runs]
    right = [(found["probabilities"].argmax(1) == found["label"]).astype(float) for found in kept]
    rows = table_after(page, "Differences on the same test items")
    cells = next(row for row in rows if row[:2] == ["accuracy", "cnn 2"])
    assert float(cells[2]) == pytest.approx(right[1].mean(), abs=1e-4)
    assert float(cells[3]) == pytest.approx((right[1] - right[0]).mean(), abs=1e-4)
    low, high = (float(word) for word in re.findall(r"[+-]\d\.\d+", cells[4]))
    assert low < (right[1] - right[0]).mean() < high
    for heading in (
        "Figures",
        "F1 of each class",
        "Confusion matrices",
        "Differences of the confusion matrices",
        "Curves",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/png;base64,") == 3 and 'src="c' not in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_any_number_of_runs(two_runs, tmp_path):
    page = main([*map(str, [*two_runs, two_runs[0]]), "--output", str(tmp_path / "page.html")]).read_text()
    rows = table_after(page, "Differences on the same test items")
    assert next(row for row in rows if row[:2] == ["loss", "cnn 3"])[3] == "+0.0000"


def test_a_task_with_other_predictions_is_compared_too(quick_run, tmp_path):
    page = main([str(quick_run), str(quick_run), "--output", str(tmp_path / "page.html")]).read_text()
    rows = table_after(page, "Differences on the same test items")
    assert rows[1][0] == "nats_per_image" and rows[2][3:] == ["+0.0000", "+0.0000 … +0.0000"]


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(1.0, (40, 200)) - 1
    covered = sum(low <= 0 <= high for low, high in map(mean_interval, samples))
    assert 33 <= covered < 40
    low, high = mean_interval(samples[0])
    assert high - low == pytest.approx(2 * 1.96 * samples[0].std() / 200**0.5, rel=0.1)


def test_runs_of_one_experiment_or_model_are_told_apart(two_runs):
    runs = read_runs([two_runs[0], two_runs[1], two_runs[0]])
    for run, words in zip(runs, ["experiment=a", "experiment=b", "experiment=a seed=1"], strict=True):
        run.config.provenance.command = f"python train.py {words}"
    assert names(runs) == ["a 1", "b", "a 2"]
    assert all(len(cells) == 3 for cells in differing_settings(runs).values())


def copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder, ignore=shutil.ignore_patterns("tensorboard", "checkpoints")))


def refused(runs: list[Path], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        main([*map(str, runs), "--output", "never.html"])
    assert "\n" not in str(error.value) and not Path("never.html").exists()


def test_other_test_items_are_refused(two_runs, quick_run, tmp_path):
    other = copy(two_runs[1], tmp_path / "other")
    predictions = dict(np.load(other / "predictions.npz"))
    fewer = {name: rows[:100] for name, rows in predictions.items()}
    moved = predictions | {"label": predictions["label"][::-1]}
    for changed, message in (
        (fewer, "on 360 items and .* on 100 others"),
        (moved, "360 others: test both on the same"),
    ):
        np.savez(other / "predictions.npz", **changed)
        refused([two_runs[0], other], message)
    refused([two_runs[0], quick_run], "of task=classification and .* of task=pixelrnn")
    config = OmegaConf.load(two_runs[1] / "config.yaml")
    config.choices.data = "mnist"
    OmegaConf.save(config, other / "config.yaml")
    refused([two_runs[0], other], "of data=digits and .* of data=mnist")


def test_what_is_no_run_is_refused(two_runs, tmp_path):
    refused([two_runs[0]], "One run alone")
    refused([two_runs[0], tmp_path / "nowhere"], "nowhere' holds no config.yaml")
    untested = copy(two_runs[1], tmp_path / "untested")
    (untested / "predictions.npz").unlink()
    refused([two_runs[0], untested], r"holds no predictions.npz: .*stages=\[test\]")
    (untested / "predictions.npz").write_bytes(b"PK\x03\x04 cut")
    refused([two_runs[0], untested], r"predictions\.npz' is damaged")


def test_a_mistake_is_one_sentence_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no config\.yaml"):
        run_tool(main)
