"""SIGTERM and Ctrl-C, as a user or a scheduler sends them to the command."""

from __future__ import annotations

import json
import os
import shlex
import signal
from operator import attrgetter

import pytest

from reporting.load import read_checkpoint
from tests.forked import Command, train

WORDS = ["model=pixelcnn", "model.hidden=4", "model.layers=1", "stages=[fit]", "patience=null", "hydra.run.dir=run"]
WORDS += ["task.module.snapshots=0", "trainer.max_epochs=400", "trainer.limit_train_batches=5", "scheduler=constant"]
WORDS += ["trainer.log_every_n_steps=5", "trainer.limit_val_batches=1"]
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(("number", "more"), [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGTERM, TWO)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(number, more, tmp_path):
    victim = Command([*WORDS, *more], tmp_path)
    last = tmp_path / "run/checkpoints/last.ckpt"
    victim.wait_for(last)
    os.kill(victim.pid, number)
    status, said = attrgetter("returncode", "stderr")(victim.ended(60))
    assert status == 128 + number, said
    if not more:
        assert said.count("\n") == 1, said
    assert f'Stopped. The run goes on where it was with: python train.py "stages=[fit]" ckpt_path={last}' in said
    steps = read_checkpoint(last)["global_step"]
    assert 0 < steps < 2000
    if number == signal.SIGTERM and not more:
        words = shlex.split(said.strip().rsplit("train.py ", 1)[1])
        done = train(*words, "stages=[fit]", f"trainer.max_epochs={steps // 5 + 2}", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "run/metrics.json").read_text())["steps"] == 5 * (steps // 5 + 2)
