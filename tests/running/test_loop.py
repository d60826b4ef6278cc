"""What spares a GPU waiting: training images on the device, fused optimizers, numbers read once in many steps."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.errors import UsageError
from lightning_modules.classification import Classification
from reporting.load import read_checkpoint
from running.training import numbers
from running.training.numbers import FiniteSteps
from tests.conftest import run_here
from tests.soak.cases import AUGMENTED, make_data
from tests.soak.compare import unequal

SHORT = ["task=classification", "model.filters=4", "model.depth=3", "stages=[fit]", "trainer.precision=32-true"]
SHORT += ["trainer.limit_val_batches=1", "patience=null", "scheduler=constant"]


@pytest.fixture
def images(tmp_path, monkeypatch) -> None:
    for name in ("ETUDES_DATA", "ETUDES_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    make_data(tmp_path / "data")


def test_with_images_on_the_device_a_run_is_the_same_also_gone_on_with(images, tmp_path):
    words = [*SHORT, *AUGMENTED]
    run_here([*words, "on_device=false", "trainer.max_steps=11"], tmp_path / "usual")
    run_here([*words, "on_device=true", "trainer.max_steps=4"], tmp_path / "there")
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'there'}", "trainer.max_steps=11"], tmp_path / "there")
    usual, there = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("usual", "there"))
    for part in ("state_dict", "optimizer_states", "loader_place", "random_states"):
        assert unequal(usual[part], there[part]) == [], part


# Steps that are not waited for


class Reads(TorchDispatchMode):
    """Counts, step by step, how often a number is read from a tensor, for which a GPU would be waited."""

    def __init__(self):
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def reads_of_steps(words: list[str], folder, monkeypatch) -> list[int]:
    counted, ends = Reads(), []
    end = FiniteSteps.on_train_batch_end

    def ended(self, *given):
        end(self, *given)
        ends.append(counted.found)

    monkeypatch.setattr(FiniteSteps, "on_train_batch_end", ended)
    with counted:
        run_here([*SHORT, *words, "trainer.max_steps=6", "trainer.log_every_n_steps=100"], folder)
    return [after - before for before, after in pairwise(ends)]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_fused_step_reads_nothing_from_the_device(optimizer, tmp_path, monkeypatch):
    words = [f"optimizer={optimizer}", "average=0.9", "nonfinite=skip", "trainer.gradient_clip_val=1.0"]
    assert reads_of_steps([*words, "fused=true"], tmp_path, monkeypatch) == [0] * 5


def test_without_a_bar_a_step_s_loss_is_read_for_its_check_alone(tmp_path, monkeypatch):
    assert reads_of_steps(["optimizer=gradient_descent"], tmp_path, monkeypatch) == [1] * 5


@pytest.mark.parametrize(("optimizer", "precision"), [("adam", "bf16-mixed"), ("sgd", "32-true")])
def test_fused_trains_as_the_usual_form_does(optimizer, precision, tmp_path):
    """Clipped too; in the order of rounding they differ."""
    words = [*SHORT, f"optimizer={optimizer}", f"trainer.precision={precision}", "trainer.gradient_clip_val=0.1"]
    words += ["trainer.max_steps=3", "model.dropout=0.0"]
    for fused in ("true", "false"):
        run_here([*words, f"fused={fused}"], tmp_path / fused)
    weights = [read_checkpoint(tmp_path / fused / "checkpoints/last.ckpt")["state_dict"] for fused in ("true", "false")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


def spoil(monkeypatch, *at_steps: int) -> None:
    """At these steps the loss, the running statistics and so all gradients are no numbers."""
    step = Classification.training_step

    def spoiled(self, batch, number):
        loss = step(self, batch, number)
        if self.global_step not in at_steps:
            return loss
        for name, buffer in self.network.named_buffers():
            if "running_" in name:
                buffer.data.fill_(float("nan"))  # behind the back of autograd, which needs it unchanged
        return loss * float("nan")

    monkeypatch.setattr(Classification, "training_step", spoiled)


@pytest.mark.parametrize(("at_step", "validated"), [(0, 2), (4, 2), (4, 100)])
def test_a_fused_run_stops_before_its_next_checkpoint_and_names_the_step(at_step, validated, tmp_path, monkeypatch):
    spoil(monkeypatch, at_step)
    words = [*SHORT, "fused=true", "optimizer=sgd", "optimizer.lr=0.01", "trainer.max_steps=12"]
    words += [f"trainer.val_check_interval={min(validated, 20)}"]
    with pytest.raises(UsageError) as found:
        run_here(words, tmp_path)
    said = rf"Training diverged: the loss is nan at step {at_step + 1} \(learning rate 0\.01, gradient norm nan\); "
    assert re.match(said, str(found.value)), str(found.value)
    last = tmp_path / "checkpoints/last.ckpt"
    assert last.exists() == (at_step == 4 and validated == 2)
    if last.exists():
        assert read_checkpoint(last)["global_step"] == 4


@pytest.mark.parametrize(("optimizer", "at_steps"), [("adamw", [2]), ("sgd", [0, 1]), ("sgd", [2])])
def test_a_fused_step_left_out_is_counted_and_leaves_no_trace(optimizer, at_steps, tmp_path, monkeypatch):
    """As without `fused`, the average and running statistics too: the first steps, and one that is read later."""
    words = [*SHORT, f"optimizer={optimizer}", "average=0.9", "nonfinite=skip", "trainer.max_steps=4"]
    words += ["model.dropout=0.0"]
    spoil(monkeypatch, *at_steps)
    found = {}
    for fused in ("true", "false"):
        run_here([*words, f"fused={fused}"], tmp_path / fused)
        found[fused] = read_checkpoint(tmp_path / fused / "checkpoints/last.ckpt")
        metrics = json.loads((tmp_path / fused / "metrics.json").read_text())
        assert metrics["steps_skipped"] == len(at_steps) and metrics["steps"] == 4
    for part in (lambda kept: kept["state_dict"], lambda kept: kept["training_weights"]["weights"]):
        usual = part(found["false"])
        for name, value in part(found["true"]).items():
            torch.testing.assert_close(value, usual[name], rtol=1e-3, atol=1e-5)


def test_numbers_are_read_once_in_so_many_steps(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(numbers, "UNREAD", 3)
    finite = FiniteSteps("skip", tmp_path / "none.ckpt")
    for number in range(5):
        loss = float("nan") if number in (1, 3) else 1.0
        finite.unread.append(numbers.Step(number + 1, None, "optimizer", 0.1, torch.tensor([loss, 1.0])))
        finite.on_train_batch_end(None, None)
        assert (len(finite.unread), finite.skipped) == [(1, 0), (2, 0), (0, 1), (1, 1), (2, 1)][number]
    assert finite.state_dict() == {"skipped": 2} and not finite.unread
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"the loss is nan at step {step} (learning rate 0.1, gradient norm 1)" for step in (2, 4)
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer=rmsprop"], "fused=true is for adam, adamw and sgd, and optimizer=rmsprop is none of them"),
        (["trainer.precision=16-mixed"], "fused=true is not for trainer.precision=16-mixed: choose"),
        (["task=scratch_mlp"], "fused=true is not for task=scratch_mlp, which steps by itself: leave it out"),
    ],
)
def test_where_fused_cannot_be_is_one_sentence(words, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        run_here([*SHORT[:1], "stages=[fit]", *words, "fused=true"], tmp_path)


def test_a_run_does_not_go_on_fused_that_began_without(tmp_path):
    run_here([*SHORT, "trainer.max_steps=2"], tmp_path)
    with pytest.raises(UsageError, match="began with fused=False cannot go on with fused=True"):
        run_here(["stages=[fit]", f"ckpt_path={tmp_path}", "fused=true"], tmp_path)
