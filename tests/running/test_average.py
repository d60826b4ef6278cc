"""An average of the weights is what is validated, kept and tested, of any task."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.images.digits import Digits
from reporting.load import load_run, read_checkpoint
from tests.conftest import SMALLEST, run_here

SMALL = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true", "patience=null"]
AVERAGED = [*SMALL, "stages=[fit]", "model.dropout=0.0", "average=0.9", "scheduler=constant"]
EVERY_TEN = "trainer.val_check_interval=10"


def averages(folder: Path) -> tuple[dict, dict]:
    checkpoint = read_checkpoint(folder / "checkpoints/last.ckpt")
    weights = {k.removeprefix("network."): v for k, v in checkpoint["state_dict"].items() if k.startswith("network.")}
    return weights, checkpoint["training_weights"]["weights"]


def test_the_average_is_what_its_definition_says(tmp_path):
    """Runs of one, two and three steps train alike, so that the average can be formed by hand."""
    runs = []
    for steps in (1, 2, 3):
        run_here([*AVERAGED, f"trainer.max_steps={steps}"], tmp_path / str(steps))
        runs.append(averages(tmp_path / str(steps)))
    for step in (2, 3):
        share = 1 - min(0.9, (1 + step) / (10 + step))
        for name, before in runs[step - 2][0].items():
            trained, found = runs[step - 1][1][name], runs[step - 1][0][name]
            expected = before + share * (trained - before) if before.is_floating_point() else trained
            torch.testing.assert_close(found, expected)
            assert name.endswith("num_batches_tracked") or not torch.equal(found, trained)


def test_the_average_is_what_is_validated_and_tested(tmp_path):
    run_here([*AVERAGED, EVERY_TEN, "stages=[fit,test]", "trainer.max_steps=30"], tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    data = Digits()
    data.prepare_data()
    network, _, _ = load_run(tmp_path)
    for split in ("val", "test"):
        images, labels = data.splits[split]
        with torch.no_grad():
            logits = network(torch.from_numpy(images))
        assert metrics[f"{split}/loss"] == pytest.approx(
            F.cross_entropy(logits, torch.from_numpy(labels)).item(), rel=1e-5
        )
        assert metrics[f"{split}/accuracy"] == pytest.approx((logits.argmax(1).numpy() == labels).mean(), rel=1e-6)


def test_a_resumed_run_goes_on_with_both_sets_of_weights(tmp_path):
    run_here([*AVERAGED, EVERY_TEN, "trainer.max_steps=35"], tmp_path / "whole")
    run_here([*AVERAGED, EVERY_TEN, "trainer.max_steps=17"], tmp_path / "halves")
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=35"], tmp_path / "halves")
    for whole, halves in zip(averages(tmp_path / "whole"), averages(tmp_path / "halves"), strict=True):
        for name, value in whole.items():
            assert torch.equal(value, halves[name]), name
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("whole", "halves")]
    whole, halves = ([row["val/loss"] for row in some if row["val/loss"]] for some in rows)
    assert len(whole) == 4 and set(whole) < set(halves), "the validations, but for the one at the stop, are the same"


def test_a_run_does_not_go_on_with_another_average(tmp_path):
    run_here([*SMALL, "stages=[fit]", "trainer.max_steps=5", "scheduler=constant"], tmp_path)
    with pytest.raises(UsageError, match=r"began with average=0\.0 cannot go on with average=0\.9"):
        run_here(["stages=[fit]", f"ckpt_path={tmp_path}", "average=0.9"], tmp_path)


@pytest.mark.parametrize("task", [task for task in SMALLEST if task != "classification"])
def test_every_task_can_average(task, tmp_path):
    before = ["teacher"] if task == "distillation" else []  # what a training begins with
    stages = f"stages=[{','.join([*before, 'fit', 'test'])}]"
    run_here([f"task={task}", "debug=quick", *SMALLEST[task].words, "average=0.9", stages], tmp_path)
    average, trained = averages(tmp_path)
    assert average.keys() == trained.keys()
    assert any(not torch.equal(average[name], trained[name]) for name in trained)
