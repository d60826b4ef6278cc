"""Several optimizers in a run: what counts steps counts batches, and a run that goes on is the unbroken one."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch

from datamodules.errors import UsageError
from reporting.load import read_checkpoint
from running.stopped import Stopped
from running.training.callbacks import ProgressLines
from tests.conftest import run_here
from tests.running.test_budget import Clock, clock  # noqa: F401
from tests.several import gan
from tests.several.ending import killed
from tests.several.gan import Game, run_game
from tests.soak.compare import differences, unequal


@pytest.fixture(autouse=True, scope="module")
def targets_of_tests():
    """A checkpoint's configuration may call nothing of the tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("reporting.load.check_calls", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three epochs of 7 batches, validated after the 3rd and 6th of each."""
    folder = tmp_path_factory.mktemp("whole")
    run_game([], folder)
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    run_game(["trainer.max_steps=3"], folder)
    return folder


def go_on(folder: Path, *words: str) -> None:
    run_game(["stages=[fit]", f"ckpt_path={folder}", *words], folder)


def last_of(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoints/last.ckpt")


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def column(folder: Path, name: str) -> dict[int, float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.parametrize(
    ("words", "moments"),
    [
        # In the middle of an epoch, past its first validation; stopped gently; at the end.
        ([], ["step:12", "term:11:-", "step:21"]),
        (["average=0.9", "trainer.max_steps=17", "checkpoint=best"], ["step:17"]),
        # Its plateau ends after 16 batches, without a validation: before a later one is made, and before any is.
        (["scheduler=warmup_stable_decay"], ["step:11", "step:15"]),
    ],
)
def test_a_run_that_goes_on_is_the_run_that_was_never_ended(words, moments, whole, tmp_path):
    """Every tensor of every checkpoint, pool and running statistics among them, curves, figures and TensorBoard."""
    if words:
        run_game(words, whole := tmp_path / "whole")
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        killed(run_game, words, folder, moment)
        ended_at = last_of(folder)["batches_done"]
        go_on(folder)
        assert differences(whole, folder) == [], moment
        assert 0 < ended_at <= last_of(folder)["batches_done"]


def test_steps_are_batches(whole):
    last, metrics = last_of(whole), metrics_of(whole)
    assert (last["global_step"], last["batches_done"], metrics["steps"], metrics["epochs"]) == (60, 20, 21, 3)
    assert list(column(whole, "train/loss_step")) == list(range(21))
    assert list(column(whole, "val/rising").items()) == [(n - 1, n) for n in (3, 6, 10, 13, 17, 20)]


def test_max_steps_are_batches_and_its_end_is_validated(tmp_path):
    run_game(["trainer.max_steps=11"], tmp_path)
    assert (last_of(tmp_path)["batches_done"], metrics_of(tmp_path)["steps"]) == (11, 11)
    assert list(column(tmp_path, "val/loss")) == [2, 5, 9, 10]
    assert column(tmp_path, "lr-generator")[10] < 1e-6, "the schedule ends with the training"
    before, epochs = last_of(tmp_path), metrics_of(tmp_path)["epochs"]
    go_on(tmp_path)
    assert last_of(tmp_path)["global_step"] == before["global_step"] and metrics_of(tmp_path)["epochs"] == epochs


def test_each_player_has_the_schedule_at_its_own_rate(whole):
    wanted = {}
    for player, rate in (("generator", 0.003), ("discriminator", 0.001)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=21, cycle_momentum=False)
        wanted[player] = []
        for _ in range(21):
            wanted[player].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(wanted[player]) < 21:
                schedule.step()
    for player, rates in wanted.items():
        assert list(column(whole, f"lr-{player}").values()) == pytest.approx(rates), player
    assert [state["last_epoch"] for state in last_of(whole)["lr_schedulers"]] == [20, 20]


def test_a_budget_of_minutes_drives_every_schedule(clock, tmp_path):  # noqa: F811
    words = ["budget.minutes=0.5", "trainer.val_check_interval=7", "trainer.max_steps=2"]
    clock()
    run_game(words, tmp_path / "whole")
    done = last_of(tmp_path / "whole")["batches_done"]
    assert 9 <= done <= 16, "about two looks at the clock a batch"
    for player in Game.players:
        rates = list(column(tmp_path / "whole", f"lr-{player}").values())
        top = rates.index(max(rates))
        assert len(rates) == done and 0 < top < done - 1
        assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
        assert rates[-1] < 0.1 * max(rates)
    clock(16, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        run_game(words, tmp_path / "halves")
    clock()
    go_on(tmp_path / "halves")
    assert abs(last_of(tmp_path / "halves")["batches_done"] - done) <= 3


def test_a_run_goes_on_from_its_plateau_with_more_batches(tmp_path):
    words = ["scheduler=warmup_stable_decay", "trainer.max_epochs=9"]
    run_game([*words, "trainer.max_steps=20"], tmp_path / "more")
    plateau = tmp_path / "more/checkpoints/plateau.ckpt"
    assert read_checkpoint(plateau)["batches_done"] == 16 and read_checkpoint(plateau)["global_step"] == 48
    with pytest.raises(UsageError, match=r"come to 18 steps, .* 16 steps are done .* give 20 steps or more"):
        run_game(["stages=[fit]", f"ckpt_path={plateau}", "trainer.max_steps=18"], tmp_path / "more")
    run_game(["stages=[fit]", f"ckpt_path={plateau}", "trainer.max_steps=30"], tmp_path / "more")
    assert last_of(tmp_path / "more")["batches_done"] == 30
    assert list(column(tmp_path / "more", "train/loss_step")) == list(range(30))


def test_the_progress_lines_count_batches(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ProgressLines, "SECONDS", 0)
    with caplog.at_level(logging.INFO):
        run_game(["trainer.max_steps=5"], tmp_path)
    lines = [message for message in caplog.messages if message.startswith("step ")]
    assert lines[0].startswith("step 1 of 5, loss ") and any(line.startswith("step 5, epoch 1:") for line in lines)
    assert all("step 15" not in line for line in lines)


def test_the_last_checkpoint_is_kept_where_no_figure_may_choose(whole, tmp_path):
    best, last = (read_checkpoint(whole / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert unequal(best["state_dict"], last["state_dict"]) == [] and best["batches_done"] == 20
    assert metrics_of(whole)["val/rising"] == 20
    run_game(["checkpoint=best", "trainer.max_epochs=1"], tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints/best.ckpt")["batches_done"] == 3
    assert metrics_of(tmp_path)["val/rising"] == 3


def spoil(monkeypatch, at: int, spoiled: int, how) -> None:
    """Has one of a batch's steps, counted from 0, make a loss of `how(module, loss)`."""
    step = Game.step
    made = []

    def wrapped(self, player, loss):
        made.append(player)
        number = (len(made) - 1) % 3
        if self.batches_done == at and number == spoiled:
            return step(self, player, lambda: how(self, loss()))
        return step(self, player, loss)

    monkeypatch.setattr(Game, "step", wrapped)


def overflow(module: Game, loss: torch.Tensor) -> torch.Tensor:
    """As in a layer: running statistics and the pool are no numbers either."""
    module.network.generator[1].running_mean.data.fill_(float("nan"))
    module.pool.data.fill_(float("nan"))
    return loss * float("nan")


@pytest.mark.parametrize(("step", "player"), [(0, "generator"), (2, "discriminator")])
def test_a_players_step_that_is_not_finite_is_left_out_by_itself(step, player, tmp_path, monkeypatch, caplog):
    """The steps before it in its batch stand, and so does what they did to the buffers."""
    states = []

    def note(self, optimizer):
        states.append({name: value.clone() for name, value in self.state_dict().items()})

    monkeypatch.setattr(Game, "on_before_optimizer_step", note)  # after what looks at the step
    spoil(monkeypatch, 4, step, overflow)
    with caplog.at_level(logging.WARNING):
        run_game(["trainer.max_steps=5", "nonfinite=skip", "optimizer=adamw"], tmp_path)
    assert f"the loss of the {player} is nan at step 5" in caplog.text
    assert metrics_of(tmp_path)["steps_skipped"] == 1 and metrics_of(tmp_path)["steps"] == 5
    before, after = states[12 + step - 1], last_of(tmp_path)["state_dict"]
    assert all(value.isfinite().all() for value in after.values())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    skipped = {name for name in after if name.startswith(f"network.{player}") and "running" not in name}
    if step == 0:  # the batch's only one of the generator; the discriminator plays on, on the images made
        assert not {name for name in moved if name in skipped or "running" in name}
        assert any("discriminator" in name for name in moved) and "pool" in moved
    else:  # the last of all: what the batch's second step did is what is left of it
        first = states[12 + 1]
        assert torch.equal(after["pool"], first["pool"])
        assert any(not torch.equal(after[name], states[11][name]) for name in skipped), "the second step stands"


def test_the_sentence_names_the_player_and_its_rate(tmp_path, monkeypatch):
    spoil(monkeypatch, 1, 1, lambda module, loss: loss + float("inf"))
    said = (
        r"Training diverged: the loss of the discriminator is inf at step 2 .* Try a smaller adversary_optimizer\.lr, "
    )
    with pytest.raises(UsageError, match=said):
        run_game([], tmp_path)


def test_a_step_moves_its_player_alone_and_clips_its_gradient(tmp_path, monkeypatch):
    norms, flags = {}, []

    def norm(module: Game, player: str) -> float:
        return float(torch.nn.utils.get_total_norm([p.grad for p in module.parameters_of(player)]))

    step = Game.on_before_optimizer_step

    def looked_at(self, optimizer):
        other = next(name for name in self.players if name != self.player)
        flags.append({p.requires_grad for p in self.parameters_of(other)})
        before = norm(self, self.player)
        step(self, optimizer)
        norms.setdefault(self.player, []).append((before, norm(self, self.player)))

    monkeypatch.setattr(Game, "on_before_optimizer_step", looked_at)
    run_game(["trainer.max_steps=3"], tmp_path, clip=0.05)
    assert flags == [{False}] * 9
    assert {player: len(found) for player, found in norms.items()} == {"generator": 3, "discriminator": 6}
    for before, after in norms["generator"] + norms["discriminator"]:
        assert after == pytest.approx(min(before, 0.05), rel=1e-4)
    assert any(before > 0.05 for before, _ in norms["generator"] + norms["discriminator"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.gradient_clip_val=1.0"], r"give task\.module\.clip=1\.0 in its place"),
        (["+trainer.accumulate_grad_batches=2"], "which step in every batch: leave it out"),
        (["trainer.devices=2"], r"in one process: leave trainer\.devices=1"),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "16-mixed needs a GPU"),
        (
            ["adversary_optimizer.lr=-1"],
            "adversary_optimizer and scheduler settings cannot work: Invalid learning rate",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(UsageError, match=said):
        run_game(words, tmp_path)


def test_a_missing_optimizer_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gan, "WORDS", [word for word in gan.WORDS if not word.startswith("adversary_optimizer")])
    with pytest.raises(UsageError, match="trained by several optimizers: give adversary_optimizer=adam, or another"):
        run_game([], tmp_path)


def test_a_second_optimizer_is_refused_where_there_is_one(tmp_path):
    with pytest.raises(UsageError, match=r"is trained by one optimizer: leave out adversary_optimizer\.$"):
        run_here(["task=multitask", "adversary_optimizer=adam"], tmp_path)


def test_a_gradient_cannot_be_cut_to_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"task\.module\.clip is -1, but it must be a number above 0, or null"):
        run_game([], tmp_path, clip=-1)


@pytest.mark.parametrize("word", ["adversary_optimizer.lr=0.5", "adversary_optimizer=sgd"])
def test_a_run_does_not_go_on_with_another_adversary(word, short):
    with pytest.raises(UsageError, match="cannot go on with adversary_optimizer"):
        go_on(short, word)


def test_a_checkpoint_of_other_players_is_refused(short, monkeypatch):
    monkeypatch.setattr(Game, "players", {"generator": "optimizer"})
    with pytest.raises(UsageError, match=r"holds 2 optimizers, but this run has 1 \(generator\): leave out words"):
        go_on(short)


def test_no_module_has_the_names_that_lightning_would_swap_weights_by():
    assert not {"saved_models", "layer"} & {*dir(Game)}
