"""A loss or gradient that is no number stops a run at its step, or is left out; precisions agree."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.char_lm import CharLM
from lightning_modules.pixelrnn import PixelRNN
from reporting.load import read_checkpoint
from running.check import check_command
from tests.conftest import run_here
from tests.soak.cases import make_data

SHORT = ["stages=[fit]", "trainer.precision=32-true", "trainer.max_epochs=1", "trainer.limit_train_batches=8"]
SHORT += ["data.batch_size=16"]
SHORT += ["trainer.val_check_interval=2", "trainer.limit_val_batches=1", "trainer.log_every_n_steps=1"]
PIXELS = ["model=pixelnet", "model.hidden=4", "model.layers=1", "task.module.snapshots=0", *SHORT]
LETTERS = ["task=char_lm", "data=text", "model.hidden=8", "model.embedding=4", "data.window=16"]
LETTERS += ["task.module.length=20", *SHORT]


def spoil(monkeypatch, task, at_step, how):
    """Has a task's loss be `how(loss)` at one step."""
    step = task.training_step

    def spoiled(self, batch, number):
        loss = step(self, batch, number)
        return how(self, loss) if self.global_step == at_step else loss

    monkeypatch.setattr(task, "training_step", spoiled)


def spoil_network(module, loss):
    """As an overflow in a layer does: running statistics and carried state are no numbers either."""
    for name, buffer in module.network.named_buffers():
        if "running_" in name:
            buffer.data.fill_(float("nan"))  # behind the back of autograd, which needs it unchanged
    if isinstance(module, CharLM):
        module.states["train"] = tuple(torch.full_like(part, float("nan")) for part in module.states["train"])
    return loss * float("nan")


def infinite_gradient(module, loss):
    """The loss is a number: its gradient is not."""
    parameter = next(module.network.parameters())
    return loss + torch.sqrt(parameter.flatten()[0] * 0)


@pytest.mark.parametrize(
    ("how", "loss"),
    [(lambda m, x: x * float("nan"), "nan"), (lambda m, x: x + float("inf"), "inf"), (infinite_gradient, r"\d.*")],
)
def test_the_run_stops_at_the_step_and_names_it(how, loss, tmp_path, monkeypatch):
    spoil(monkeypatch, PixelRNN, 4, how)
    with pytest.raises(UsageError) as found:
        run_here([*PIXELS, "scheduler=constant", "optimizer.lr=0.004"], tmp_path)
    last = tmp_path / "checkpoints/last.ckpt"
    wanted = (
        rf"Training diverged: the loss is {loss} at step 5 \(learning rate 0\.004, gradient norm (\S+)\); the last "
    )
    assert re.match(wanted + re.escape(f"good checkpoint is {last}."), str(found.value)), str(found.value)
    kept = read_checkpoint(last)
    assert kept["global_step"] == 4 and all(value.isfinite().all() for value in kept["state_dict"].values())


def test_before_the_first_checkpoint_none_is_named(tmp_path, monkeypatch):
    spoil(monkeypatch, PixelRNN, 0, spoil_network)
    with pytest.raises(UsageError, match=r"at step 1 .* there is no checkpoint yet"):
        run_here(PIXELS, tmp_path)


@pytest.mark.parametrize("task", [PixelRNN, CharLM])
def test_a_step_left_out_is_counted_and_leaves_no_trace(task, tmp_path, monkeypatch):
    for name in ("ETUDES_DATA", "ETUDES_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    words = PIXELS if task is PixelRNN else [*LETTERS, *make_data(tmp_path / "data")]
    spoil(monkeypatch, task, 4, spoil_network)
    run_here([*words, "nonfinite=skip"], tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["steps_skipped"] == 1 and metrics["steps"] == 8
    last = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        validated = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(validated) == 4 and max(validated) < 10


def test_the_weights_of_a_step_left_out_are_those_before_it(tmp_path, monkeypatch):
    spoil(monkeypatch, PixelRNN, 4, spoil_network)
    words = [*PIXELS, "nonfinite=skip", "scheduler=constant", "optimizer=adamw", "optimizer.weight_decay=0.5"]
    run_here([*words, "trainer.max_steps=4"], tmp_path / "before")
    run_here([*words, "trainer.max_steps=5"], tmp_path / "after")
    before, after = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("before", "after"))
    assert after["global_step"] == 5
    for name, value in before["state_dict"].items():
        if "mean" not in name:  # the figures' means; batch normalisation's are `running_mean`, looked at next
            assert torch.equal(after["state_dict"][name], value), name
    assert all(torch.equal(after["state_dict"][n], v) for n, v in before["state_dict"].items() if "running_" in n)


def test_no_other_word_is_taken(tmp_path):
    with pytest.raises(UsageError, match="nonfinite is 'ignore': choose stop or skip"):
        run_here([*PIXELS, "nonfinite=ignore"], tmp_path)


TOLERANCE = 0.02  # of the loss, relative: bf16 has 8 bits of mantissa, 0.004 a rounding

TASKS = {
    "pixelrnn": ["model.hidden=4", "model.layers=1", "task.module.snapshots=0", "data.eval_batch_size=16"],
    "classification": ["task=classification", "model.filters=8", "model.depth=3"],
    "char_lm": [*LETTERS],
}


@pytest.mark.parametrize("task", TASKS)
def test_bf16_agrees_with_float32(task, tmp_path, monkeypatch):
    """The same weights, trained a little in float32, tested in both."""
    for name in ("ETUDES_DATA", "ETUDES_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    words = [*TASKS[task], *SHORT, *(make_data(tmp_path / "data") if task == "char_lm" else [])]
    run_here(words, tmp_path / "run")
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        again = ["stages=[test]", f"ckpt_path={tmp_path / 'run'}", "trainer.limit_test_batches=2"]
        run_here([*check_command(again), *again, f"trainer.precision={precision}"], tmp_path / precision)
        losses.append(json.loads((tmp_path / precision / "metrics.json").read_text())["test/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    assert losses[1] != losses[0], "bf16 was not used"
