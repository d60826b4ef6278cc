"""Two processes are one run: its weights, its figures, its folder; and one that fails ends the other."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reporting.load import read_checkpoint
from running.check import check_command
from tests.conftest import REPOSITORY, run_here
from tests.forked import Command, train, train_as_two
from tests.soak.cases import make_data
from tests.soak.killing import arrange
from train import main

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
SHORT = ["trainer.precision=32-true", "trainer.max_epochs=1", "trainer.limit_train_batches=6"]
SHORT += ["trainer.val_check_interval=3", "trainer.log_every_n_steps=2"]
PIXELS = ["model=pixelcnn", "model.hidden=4", "model.layers=1", "model.dropout=0", "task.module.snapshots=0"]
PIXELS += ["task.module.samples=2", "task.module.completions=1", "data.eval_batch_size=77"]
LETTERS = ["task=char_lm", "data=text", "model.hidden=8", "model.embedding=4", "model.dropout=0", "data.window=16"]
LETTERS += ["task.module.length=20", "data.eval_batch_size=5"]
PICTURES = ["task=classification", "model.filters=4", "model.depth=3", "data.eval_batch_size=77"]
RUNS = {"pixelrnn": (PIXELS, 16), "char_lm": (LETTERS, 4), "classification": (PICTURES, 16)}  # batch of each process


@pytest.mark.parametrize("task", RUNS)
def test_two_processes_are_one_run(task, tmp_path, monkeypatch):
    """Trained on the same batches, halved: the same weights (batch normalisation apart, whose batches are the halves).
    The same checkpoint tested: the same figures, every item once, though neither batches nor processes come out even.
    """
    words, batch = RUNS[task]
    for name in ("ETUDES_DATA", "ETUDES_CACHE"):  # put back at the end
        monkeypatch.setenv(name, str(tmp_path / "data"))
    words = [*words, *SHORT, *(make_data(tmp_path / "data") if task == "char_lm" else [])]
    done, other = train_as_two(*words, *TWO, f"data.batch_size={batch}", "hydra.run.dir=two", folder=tmp_path)
    assert done.returncode == other.returncode == 0, done.stderr + other.stderr
    two = tmp_path / "two"
    assert {path.name for path in tmp_path.iterdir()} - {"data", "cache"} == {"two"}, "one run folder"
    assert (two / "report.html").exists() and done.stdout.count("report:") == 1

    if task != "classification":
        run_here([*words, "stages=[fit]", f"data.batch_size={2 * batch}"], tmp_path / "one")
        one, both = (read_checkpoint(folder / "checkpoints/last.ckpt") for folder in (tmp_path / "one", two))
        for name, weights in one["state_dict"].items():
            torch.testing.assert_close(both["state_dict"][name], weights, rtol=1e-4, atol=1e-6, msg=name)
    again = ["stages=[test]", f"ckpt_path={two / 'checkpoints/best.ckpt'}"]
    run_here([*check_command(again), *again, "trainer=default", "trainer.precision=32-true"], tmp_path / "again")
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (two, tmp_path / "again"))
    figures = [name for name in first if name.startswith("test/")]
    assert figures
    for name in figures:  # some are sums of float32, taken in another order
        assert second[name] == pytest.approx(first[name], rel=1e-5), name
    ours, theirs = (np.load(folder / "predictions.npz") for folder in (two, tmp_path / "again"))
    assert sorted(ours.files) == sorted(theirs.files)
    for name in ours.files:
        if ours[name].dtype.kind == "f":
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            assert np.array_equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("kernels", ["4,5", pytest.param("4,7,5,3", marks=pytest.mark.slow)])
def test_a_sweep_of_two_processes_goes_on_past_a_job_that_fails(kernels, tmp_path):
    words = ["-m", *PIXELS, *SHORT, *TWO, "stages=[fit,test]", f"model.first_kernel={kernels}", "hydra.sweep.dir=sweep"]
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"sweep"}
    assert "needs a centre" in (tmp_path / "sweep/0/failure.json").read_text()
    jobs = range(1, len(kernels.split(",")))
    for job in jobs:
        assert "test/bits_per_dim" in json.loads((tmp_path / f"sweep/{job}/metrics.json").read_text()), job
    assert f"{len(jobs) + 1} runs: {len(jobs)} finished, 1 failed." in (tmp_path / "sweep/summary.md").read_text()


def stopped_at(moment: str) -> None:
    """train.py, asked to end at a moment of `tests.soak.killing`."""
    arrange(moment)
    main()


@pytest.mark.parametrize("task", ["pixelrnn", "char_lm"])
def test_an_epoch_resumed_midway_in_two_processes_is_the_whole_epoch(task, tmp_path, monkeypatch):
    """They are asked to end in the fourth step of six, and do after the fifth, two after a validation."""
    words, batch = RUNS[task]
    monkeypatch.setenv("ETUDES_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ETUDES_CACHE", str(tmp_path / "data"))
    words = [*words, *SHORT, *(make_data(tmp_path / "data") if task == "char_lm" else [])]
    words += [*TWO, "stages=[fit]", f"data.batch_size={batch}"]
    whole = train_as_two(*words, "hydra.run.dir=whole", folder=tmp_path)
    ended = train_as_two(*words, "hydra.run.dir=run", folder=tmp_path, program=partial(stopped_at, "term:4:-"))
    assert [done.returncode for done in ended] == [128 + signal.SIGTERM] * 2, ended[0].stderr + ended[1].stderr
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert read_checkpoint(last)["global_step"] == 5 and len(read_checkpoint(last)["sums"]) == 2
    again = train_as_two(f"ckpt_path={last}", folder=tmp_path)
    assert [done.returncode for done in [*whole, *again]] == [0] * 4, again[0].stderr + again[1].stderr
    figures = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "run")]
    for name in figures[0]:
        assert name.startswith("seconds") or figures[1][name] == figures[0][name], name
    assert f"train/{'nats_per_image' if task == 'pixelrnn' else 'loss'}" in figures[0]


FAILING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from lightning_modules.pixelrnn.module import PixelRNN
step = PixelRNN.training_step

def fail_once(self, batch, number):
    if self.global_rank == {rank} and self.global_step == 3:
        Path({failed_at!r}).write_text(str(time.time()))
        raise RuntimeError("planted in process {rank}")
    return step(self, batch, number)

PixelRNN.training_step = fail_once
train = Path({repository!r}) / "train.py"  # under this script's name: the other process runs it too
exec(compile(train.read_text(), train, "exec"))
"""


@pytest.mark.timeout(500)
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_fails_ends_the_other(rank, tmp_path):
    script = tmp_path / "failing.py"
    failed_at = tmp_path / "failed_at"
    script.write_text(FAILING.format(repository=str(REPOSITORY), rank=rank, failed_at=str(failed_at)))
    words = [*PIXELS, *SHORT, *TWO, "hydra.run.dir=run"]
    done = Command(words, tmp_path, partial(runpy.run_path, str(script), run_name="__main__"), script).ended(400)
    assert done.returncode != 0 and f"planted in process {rank}" in done.stderr
    assert time.time() - float(failed_at.read_text()) < 30
    assert not others_of(script), "a process is left over"


def others_of(script: Path) -> list[str]:
    """The processes of this machine that run `script`."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if str(script) in line]
