"""A run goes on from its plateau with more time, as if it had had it from the start."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.pixelrnn import PixelRNN
from lightning_modules.schedules import WarmupStableDecay
from reporting.load import read_checkpoint
from tests.conftest import run_here
from tests.running.test_budget import Clock, clock  # noqa: F401
from tests.several.ending import killed
from tests.soak.compare import differences

NET = ["stages=[fit]", "model=pixelcnn", "model.hidden=4", "model.layers=1", "trainer.precision=32-true"]
WORDS = [*NET, "scheduler=warmup_stable_decay", "optimizer=adam", "optimizer.lr=0.01", "data.batch_size=64"]
WORDS += ["task.module.snapshots=2", "trainer.log_every_n_steps=1", "trainer.limit_val_batches=1"]


def factors(total: int, **shares: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupStableDecay(optimizer, total, **shares)
    return [schedule.factor(step) for step in range(total + 1)]


def test_the_schedule_is_up_level_and_down():
    found = factors(20, warmup=0.2, decay=0.25)
    assert found[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert found[4:16] == [1] * 12, "level after a fifth, and the state after fifteen is the plateau's last"
    assert found[15:] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert factors(10, warmup=0.0, decay=0.2)[:9] == [1] * 9


@pytest.mark.parametrize(("warmup", "decay"), [(1.0, 0.1), (-0.1, 0.1), (0.1, 0.0), (0.6, 0.5)])
def test_shares_that_cannot_be_are_one_sentence(warmup, decay, tmp_path):
    with pytest.raises(UsageError, match=f"scheduler.warmup is {warmup} and scheduler.decay {decay}, but they must be"):
        run_here([*WORDS, f"scheduler.warmup={warmup}", f"scheduler.decay={decay}"], tmp_path)


def curve(folder: Path, name: str) -> dict[int, float]:
    rows = csv.DictReader((folder / "metrics.csv").open())
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}


def plateau(folder: Path) -> Path:
    return folder / "checkpoints/plateau.ckpt"


# A plateau that ends within an epoch of 21 batches, at one's end, and with a validation
ENDS = {
    "within an epoch": ["trainer.max_steps=40", "trainer.val_check_interval=10"],
    "at an epoch's end": ["trainer.max_epochs=5", "data.batch_size=75", "trainer.check_val_every_n_epoch=5"],
    "with a validation": ["trainer.max_steps=50", "trainer.val_check_interval=10", "average=0.9", "patience=9"],
}


@pytest.mark.parametrize("where", ENDS)
def test_going_on_from_the_plateau_is_the_run_itself(where, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    for folder in (whole, again):
        run_here([*WORDS, *ENDS[where]], folder)
    kept = read_checkpoint(plateau(whole))
    (schedule,) = kept["lr_schedulers"]
    assert schedule["last_epoch"] == schedule["plateau_end"] == kept["global_step"] and schedule["_last_lr"] == [0.01]
    run_here(["stages=[fit]", f"ckpt_path={plateau(again)}"], again)
    assert differences(whole, again) == []


def test_the_figures_so_far_are_kept_before_a_run_that_goes_on_is_validated_again(tmp_path):
    words = [*WORDS, *ENDS["within an epoch"]]
    run_here(words, tmp_path / "whole")
    end = read_checkpoint(plateau(tmp_path / "whole"))["batches_done"]
    killed(run_here, words, tmp_path / "halves", f"step:{end}")
    assert 31 == read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")["batches_done"] < end < 40
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}"], tmp_path / "halves")
    assert "val/loss" in read_checkpoint(plateau(tmp_path / "halves"))["metrics"]
    assert differences(tmp_path / "whole", tmp_path / "halves") == []


@pytest.mark.parametrize("how", ["average=0.0", "average=0.9"])
def test_more_steps_are_as_if_there_had_been_so_many_from_the_start(how, tmp_path):
    words = [*WORDS, how, "trainer.val_check_interval=10", "patience=20"]
    run_here([*words, "trainer.max_steps=40", "scheduler.warmup=0.1"], tmp_path / "more")
    best = read_checkpoint(tmp_path / "more/checkpoints/best.ckpt")
    assert best["global_step"] > 32, "the best must come from the decay, or this test shows nothing"
    run_here(["stages=[fit]", f"ckpt_path={plateau(tmp_path / 'more')}", "trainer.max_steps=80"], tmp_path / "more")
    run_here([*words, "trainer.max_steps=80", "scheduler.warmup=0.05"], tmp_path / "whole")
    for name in ("best", "last", "plateau"):
        more, whole = (read_checkpoint(tmp_path / run / f"checkpoints/{name}.ckpt") for run in ("more", "whole"))
        assert more["global_step"] == whole["global_step"] and more.get("training_weights", {}).keys() == (
            whole.get("training_weights", {}).keys()
        )
        for key, value in whole["state_dict"].items():
            assert torch.equal(value, more["state_dict"][key]), (name, key)
    assert curve(tmp_path / "more", "lr-Adam") == curve(tmp_path / "whole", "lr-Adam")
    assert curve(tmp_path / "more", "val/loss") == curve(tmp_path / "whole", "val/loss"), "those of the decay are gone"
    assert json.loads((tmp_path / "more/metrics.json").read_text())["steps"] == 80


def test_a_best_of_the_decay_is_forgotten(tmp_path, monkeypatch):
    """Training goes uphill after the plateau, so that no later validation is better than the best of the first run."""
    best, words = tmp_path / "checkpoints/best.ckpt", ["stages=[fit]", f"ckpt_path={plateau(tmp_path)}"]
    run_here([*WORDS, "trainer.max_steps=20", "trainer.val_check_interval=6"], tmp_path)
    assert read_checkpoint(best)["global_step"] == 20
    monkeypatch.setattr(WarmupStableDecay, "factor", lambda schedule, step: -1.0)
    run_here([*words, "trainer.max_steps=30"], tmp_path)
    found = read_checkpoint(best)
    assert found["config"]["trainer"]["max_steps"] == 30 and found["global_step"] == 18, "its own first"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.max_steps=38", "trainer.max_epochs and max_steps come to 38 steps, which is too short: 32 steps are "
         "done before the decay, which would then begin after 30; give 40 steps or more."),
        ("budget.minutes=5", "goes on from its plateau with more of these, one with a budget of time"),
        ("data.batch_size=32", "began with data.batch_size=64 cannot go on"),
        ("scheduler.warmup=0.1", "began with scheduler.warmup=0.05 cannot go on"),
    ],
)  # fmt: skip
def test_what_a_plateau_cannot_go_on_with(word, said, stopped, tmp_path):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    with pytest.raises(UsageError) as refused:
        run_here(["stages=[fit]", "scheduler=warmup_stable_decay", f"ckpt_path={plateau(folder)}", word], folder)
    assert said in str(refused.value)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plateau") / "run"
    run_here([*WORDS, "trainer.max_steps=40"], folder)
    return folder


def test_a_decay_cannot_be_given_more(stopped, tmp_path):
    with pytest.raises(UsageError, match=r"max_steps=40 cannot go on .*or go on from its checkpoints/plateau.ckpt\.$"):
        run_here(["stages=[fit]", f"ckpt_path={stopped}/checkpoints/last.ckpt", "trainer.max_steps=80"], tmp_path)


# Minutes


def test_a_budget_can_be_given_more_minutes(clock, tmp_path):  # noqa: F811
    clock()
    run_here([*WORDS, "budget.minutes=1"], tmp_path)
    first, kept = curve(tmp_path, "lr-Adam"), read_checkpoint(plateau(tmp_path))
    assert kept["lr_schedulers"][0]["last_epoch"] == 8000 and 47 <= kept["seconds"] <= 52
    assert min(list(first.values())[-3:]) < 0.005
    clock()
    run_here(["stages=[fit]", f"ckpt_path={plateau(tmp_path)}", "budget.minutes=3"], tmp_path)
    found, again = curve(tmp_path, "lr-Adam"), read_checkpoint(plateau(tmp_path))
    level = [step for step, rate in found.items() if rate == 0.01]
    assert level == list(range(level[0], level[-1] + 1)) and level[0] <= 4, "the warm-up does not come again"
    assert len(level) == pytest.approx(0.77 * len(found), abs=4)
    assert list(found.values())[-1] < 0.001
    assert again["lr_schedulers"][0]["last_epoch"] == 8000 and 142 <= again["seconds"] <= 150
    assert again["global_step"] == pytest.approx(level[-1], abs=2)


def test_fewer_minutes_than_are_done_are_refused(clock, tmp_path):  # noqa: F811
    clock()
    run_here([*WORDS, "budget.minutes=1"], tmp_path)
    seconds = read_checkpoint(plateau(tmp_path))["seconds"]
    with pytest.raises(
        UsageError, match=r"budget\.minutes=0\.9 is too short: 0\.8\d* minutes are done .* give 1\.\d m"
    ):
        run_here(["stages=[fit]", f"ckpt_path={plateau(tmp_path)}", "budget.minutes=0.9"], tmp_path)
    clock()
    run_here(["stages=[fit]", f"ckpt_path={plateau(tmp_path)}"], tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["seconds"] > seconds, "with the same it goes on"


def test_a_budget_whose_time_runs_over_the_plateaus_end_in_a_validation_keeps_it(clock, tmp_path, monkeypatch):  # noqa: F811
    made: Clock = clock()
    monkeypatch.setattr(PixelRNN, "on_validation_start", lambda module: setattr(made, "now", made.now + 40))
    run_here([*WORDS, "budget.minutes=1.5", "trainer.val_check_interval=15"], tmp_path)
    kept = read_checkpoint(plateau(tmp_path))
    assert kept["lr_schedulers"][0]["last_epoch"] == 8000 and kept["lr_schedulers"][0]["_last_lr"] == [0.01]
