"""A run's report, the figures in it and its metrics; exact figures whatever the batches; two processes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import UsageError
from tests.conftest import run_here
from tests.forked import train_as_two

SMALL = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true", "patience=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = [*SMALL, "trainer.max_epochs=2", "task.module.tta=true", "task.module.shown_images=[5,2]"]
    words += ["trainer.precision=32-true"]  # bf16 rounds otherwise in batches of another size
    run_here(
        [*words, "published=[{source: a book, data: digits, split: test, figures: {accuracy: 0.5, loss: 1.25}}]"],
        folder,
    )
    return folder


def test_metrics_hold_what_others_rely_on(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), np.load(run / "predictions.npz")
    for split in ("train", "val", "test"):
        assert 0 <= metrics[f"{split}/accuracy"] <= 1 and metrics[f"{split}/loss"] > 0
    assert {"parameters", "seconds/fit", "seconds/test", "test/f1_macro", "test/accuracy_tta"} <= metrics.keys()
    chosen = kept["probabilities"][np.arange(360), kept["label"]]
    assert metrics["test/loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    assert kept["class_names"].tolist() == list("0123456789") and len(kept["label"]) == 360


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for section in ("Accuracy", "Classes", "Confusion matrix", "Most confident mistakes", "Calibration", "Feature maps",
                    "Curves", "Figures of this run", "How it was made"):  # fmt: skip
        assert f"\n## {section}\n" in text
    assert "| test | 50.00% | 1.2500 | a book |" in text
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"| **test** | {metrics['test/accuracy']:.2%} | {metrics['test/loss']:.4f} | this run |" in text
    row = re.search(r"\| macro average \| (\S+) \| (\S+) \| (\S+) \| 360 \|", text)
    names = ("precision_macro", "recall_macro", "f1_macro")
    assert [float(cell) for cell in row.groups()] == pytest.approx([metrics[f"test/{n}"] for n in names], abs=1e-4)
    assert f"calibration error {metrics['test/calibration_error']:.4f}" in text


def test_every_figure_is_a_picture_with_something_on_it(run):
    names = {path.stem for path in (run / "figures").glob("*.png")}
    assert names == {"calibration", "confusion", "curves", "feature_maps", "mistakes"}
    for name in names:
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_run_that_was_not_tested_still_reports(tmp_path):
    run_here([*SMALL, "stages=[fit,report]", "trainer.max_steps=2"], tmp_path)
    assert "## Feature maps" in (tmp_path / "report.md").read_text()


def test_batches_of_other_sizes_change_no_figure(run, tmp_path):
    run_here(["task=classification", "stages=[test]", f"ckpt_path={run}", "data.eval_batch_size=77"], tmp_path)
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path))
    assert again["test/accuracy"] == first["test/accuracy"] and again["test/f1_macro"] == first["test/f1_macro"]
    assert again["test/loss"] == pytest.approx(first["test/loss"], rel=1e-6)


def test_images_that_are_not_there_cannot_be_shown(run, tmp_path):
    words = ["task=classification", "stages=[report]", f"ckpt_path={run}", "task.module.shown_images=[360]"]
    with pytest.raises(UsageError, match="shown_images names 360, but the test images are numbered 0 to 359"):
        run_here(words, tmp_path)


def test_a_networks_images_must_be_of_its_data(run, tmp_path):
    """Greyscale digits trained it: colour photographs are refused with what it was trained on."""
    with pytest.raises(UsageError, match=r"was trained on ImageSpec\(channels=1, height=8.*choose the data it was"):
        run_here(["task=classification", "stages=[test]", f"ckpt_path={run}", "data=photos"], tmp_path)


def test_two_processes_count_every_image_once(run, tmp_path):
    """360 images in batches of 77 over two processes: the exact accuracy, not a mean of the batches' or processes'."""
    words = ["stages=[test]", f"ckpt_path={run}", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    words += ["trainer.precision=32-true", "data.eval_batch_size=77", "hydra.run.dir=two"]
    for done in train_as_two(*words, folder=tmp_path):
        assert done.returncode == 0, done.stderr
    first, two = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "two"))
    for name in ("test/accuracy", "test/accuracy_tta", "test/f1_macro"):
        assert two[name] == pytest.approx(first[name], rel=1e-6)
    assert two["test/loss"] == pytest.approx(first["test/loss"], rel=1e-5)
