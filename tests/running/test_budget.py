"""A budget of minutes ends training and its schedule together, over several sittings too."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest

from lightning_modules.pixelrnn import PixelRNN
from reporting.load import read_checkpoint
from running.stopped import Stopped
from running.training.callbacks import Record
from tests.conftest import run_here

WORDS = ["stages=[fit]", "model=pixelcnn", "model.hidden=4", "model.layers=1", "trainer.precision=32-true"]
WORDS += ["budget.minutes=1", "task.module.snapshots=0", "trainer.log_every_n_steps=1", "optimizer.lr=0.01"]
WORDS += ["data.batch_size=64", "trainer.max_steps=3"]  # which a budget takes the place of


class Clock:
    """A second goes by at every look at it; `then` happens after so many looks."""

    def __init__(self, looks: int = -1, then=None):
        self.now, self.looks, self.then = 0.0, looks, then

    def seconds(self, record: Record) -> float:
        self.now += 1
        if self.now == self.looks:
            self.then()
        return record.seconds_before + self.now


@pytest.fixture
def clock(monkeypatch):
    def put(*args) -> Clock:
        made = Clock(*args)
        monkeypatch.setattr(Record, "seconds", property(made.seconds))
        return made

    return put


def rates(folder: Path) -> list[float]:
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [float(row["lr-Adam"]) for row in rows if row.get("lr-Adam")]


def test_training_and_schedule_end_together(clock, tmp_path):
    clock()
    run_here([*WORDS, "optimizer=adam"], tmp_path)
    checkpoint, found = read_checkpoint(tmp_path / "checkpoints/last.ckpt"), rates(tmp_path)
    assert 20 <= checkpoint["global_step"] <= 30, "about two looks a step"
    assert len(found) == checkpoint["global_step"]
    top = found.index(max(found))
    assert max(found) == pytest.approx(0.01, rel=0.02) and top / len(found) == pytest.approx(0.3, abs=0.1)
    assert found[:top] == sorted(found[:top]) and found[top:] == sorted(found[top:], reverse=True)
    assert found[-1] < 0.05 * max(found)
    assert "val/bits_per_dim" in checkpoint["metrics"], "validated after the last step"


def test_the_last_step_is_validated_in_an_epoch_that_has_no_validation(clock, tmp_path):
    clock()
    run_here([*WORDS, "optimizer=adam", "trainer.check_val_every_n_epoch=50"], tmp_path)
    assert "val/bits_per_dim" in read_checkpoint(tmp_path / "checkpoints/best.ckpt")["metrics"]


def test_time_that_runs_out_in_a_validation_ends_training_with_it(clock, tmp_path, monkeypatch):
    made = clock()
    monkeypatch.setattr(PixelRNN, "on_validation_start", lambda module: setattr(made, "now", made.now + 60))
    run_here([*WORDS, "optimizer=adam", "trainer.val_check_interval=5"], tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 5


def test_a_second_sitting_has_what_the_first_left(clock, tmp_path):
    clock()
    run_here([*WORDS, "optimizer=adam"], tmp_path / "whole")
    clock(31, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        run_here([*WORDS, "optimizer=adam"], tmp_path / "halves")
    half = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")
    assert 10 <= half["global_step"] <= 16 and 30 <= half["seconds"] <= 35
    clock()
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}"], tmp_path / "halves")
    whole, halves = rates(tmp_path / "whole"), rates(tmp_path / "halves")
    assert abs(len(whole) - len(halves)) <= 4
    assert halves[-1] < 0.05 * max(halves) and max(halves) == pytest.approx(0.01, rel=0.02)


def test_a_run_whose_budget_is_spent_takes_no_further_step(clock, tmp_path):
    clock()
    run_here([*WORDS, "optimizer=adam"], tmp_path)
    before = read_checkpoint(tmp_path / "checkpoints/last.ckpt")
    run_here(["stages=[fit]", f"ckpt_path={tmp_path}"], tmp_path)
    after = read_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert after["global_step"] == before["global_step"]


@pytest.mark.parametrize(
    "task", ["task=scratch_mlp", "task=char_lm model.hidden=8 model.embedding=4 task.module.length=5"]
)
def test_every_kind_of_task_can_have_a_budget(task, clock, tmp_path):
    """One that steps its own schedule, and one with streams that carry state."""
    clock()
    run_here([*task.split(), "stages=[fit]", "budget.minutes=0.3", "trainer.limit_val_batches=2"], tmp_path)
    checkpoint = read_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert 5 <= checkpoint["global_step"] <= 9
    assert checkpoint["lr_schedulers"][0]["last_epoch"] >= 8000
