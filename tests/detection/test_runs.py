"""A run's figures and report, and the stages on files."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.errors import UsageError
from datamodules.scenes.dota_text import write_detections, write_labels
from lightning_modules.detection import Detection
from lightning_modules.detection.average_precision import judge, summary
from lightning_modules.detection.files import judged_folders
from reporting.compare import read_runs
from reporting.load import read_checkpoint
from reporting.predictions import read_predictions
from tests.conftest import run_here
from tests.detection.smallest import SMALLEST

SMALL = ["task=detection", *SMALLEST.words, "trainer.max_epochs=2", "trainer.precision=32-true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*SMALL, "stages=[fit,test,speed,report]", f"paths.cache={folder}/cache"], folder)
    return folder


def test_figures_agree_with_the_predictions(run):
    metrics, rows = json.loads((run / "metrics.json").read_text()), read_predictions(run)
    assert len(rows["detections"]) == len(rows["truths"]) == 6 and rows["truths"][0].shape[1] == 7
    found = summary(judge(rows["detections"], rows["truths"]), tuple("0123456789"))
    for name, value in found.items():
        assert metrics[f"test/{name}"] == pytest.approx(value)
    parts = sum(metrics[f"train/{name}"] for name in ("rpn_class", "rpn_box", "head_class", "head_box"))
    assert metrics["train/loss"] == pytest.approx(parts, rel=1e-5)
    assert metrics["speed/fps"] == pytest.approx(1000 / metrics["speed/latency_p50_ms"], rel=1e-3)
    assert metrics["speed/macs"] > 1e5 and metrics["speed/parameters"] == metrics["parameters"]
    assert 0 <= metrics["test/rpn_recall_10"] <= metrics["test/rpn_recall_50"] <= metrics["test/rpn_recall_100"] <= 1


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for title in (
        "Average precision",
        "Images",
        "Precision and recall",
        "Angles",
        "Long and short objects",
        "Kinds of error",
        "Curves",
    ):
        assert f"## {title}\n" in text
    for name in ("boxes", "precision", "angles", "aspects"):
        assert (run / f"figures/{name}.png").exists()


def test_a_run_goes_on_as_it_was(tmp_path):
    """Resumed in the middle of an epoch: the same samples are drawn, the same weights come out."""
    words = [*SMALL, "stages=[fit]", "scheduler=constant", "trainer.val_check_interval=1", f"paths.cache={tmp_path}"]
    run_here([*words, "trainer.max_steps=4"], tmp_path / "whole")
    run_here([*words, "trainer.max_steps=3"], tmp_path / "halves")
    again = ["task=detection", "stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=4"]
    run_here(again, tmp_path / "halves")
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] == 4
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name


def test_networks_are_compared_by_shape(run, tmp_path):
    sections = Detection.comparison(read_runs([run, run]), tmp_path)
    assert "| oriented_rcnn | true outer boxes |" in sections[0].text and (tmp_path / "aspects.png").exists()


def test_other_scenes_of_the_same_classes_fit():
    """What images have most boxes is not the network's concern; what classes are called is."""
    spec = SMALLEST.spec
    assert replace(spec, boxes=9) == spec != replace(spec, names=("a", "c")) and "'c'" in repr(
        replace(spec, names=("a", "c"))
    )


def test_pictures_of_any_size_become_files(run, tmp_path):
    (tmp_path / "mine").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in {"a": (40, 90, 3), "b": (20, 31, 3)}.items():  # larger and smaller than the network's
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "mine" / f"{name}.png")
    words = ["stages=[detect]", f"ckpt_path={run}", f"images={tmp_path}/mine", "+model.score_min=0.0"]
    run_here([*SMALL, *words[:-1], f"paths.cache={run}/cache"], tmp_path / "out")
    folder = tmp_path / "out" / "detect"
    records = json.loads((folder / "detections.json").read_text())
    assert {"a.png", "b.png", "Task1_0.txt", "Task1_9.txt"} <= {file.name for file in folder.iterdir()}
    lines = sum(len(file.read_text().splitlines()) for file in folder.glob("Task1_*.txt"))
    assert len(records) == lines and all(len(record["corners"]) == 4 for record in records)


def test_two_folders_are_compared(tmp_path, caplog):
    boxes = np.array([[20.0, 30, 10, 4, 0.5], [60, 30, 20, 8, -1.2], [90, 90, 12, 8, 0]])
    (tmp_path / "labelTxt").mkdir()
    write_labels(tmp_path / "labelTxt" / "P1.txt", boxes, ["ship", "plane", "ship"], np.array([False, False, True]))
    (tmp_path / "labelTxt" / "P2.txt").write_text("0 0 40 0 10 10 0 40 plane 0\n")  # not convex
    rows = np.array([[*boxes[0], 0.9, 0], [*boxes[2], 0.8, 0], [*boxes[1], 0.7, 1]])
    write_detections(tmp_path / "found", {"P1": rows}, ("ship", "plane"))
    with caplog.at_level(logging.WARNING):
        names, _ = judged_folders(tmp_path / "labelTxt", tmp_path / "found")
    assert names == ["plane", "ship"] and "not convex" in caplog.text
    words = ["stages=[evaluate]", f"truths={tmp_path}/labelTxt", f"found={tmp_path}/found"]
    found = run_here([*SMALL, *words, f"paths.cache={tmp_path}/cache"], tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["evaluate/ap50_ship"] == pytest.approx(1) and metrics["evaluate/ap50_plane"] == pytest.approx(0.5)
    assert found == metrics["evaluate/ap50"] == pytest.approx(0.75)
    write_detections(tmp_path / "found", {"P3": rows}, ("ship", "plane"))
    with pytest.raises(UsageError, match="image 'P3', which has no labels"):
        judged_folders(tmp_path / "labelTxt", tmp_path / "found")


def test_what_is_missing_is_said(run, tmp_path):
    with pytest.raises(UsageError, match="images=nowhere is no folder"):
        words = ["stages=[detect]", f"ckpt_path={run}", "images=nowhere"]
        run_here([*SMALL, *words, f"paths.cache={run}/cache"], tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        words = ["stages=[evaluate]", f"truths={tmp_path}/none", f"found={tmp_path}"]
        run_here([*SMALL, *words, f"paths.cache={run}/cache"], tmp_path / "b")
    with pytest.raises(UsageError, match="trained on"):
        words = ["stages=[test]", f"ckpt_path={run}", "data.merge_69=true"]
        run_here([*SMALL, *words, f"paths.cache={run}/cache"], tmp_path / "c")
    with pytest.raises(UsageError, match="data=digit_scenes"):
        run_here(["task=detection", "data=digits", "debug=quick"], tmp_path / "d")
