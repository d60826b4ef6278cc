"""A run's folder, going on after a kill, and a checkpoint used alone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.images.digits import Digits
from reporting.load import load_run, read_checkpoint
from reporting.results.keep import keep_weights
from running import provenance
from running.check import check_command
from running.precision import cpu_bf16_unit, resolve_precision
from tests.conftest import QUICK, run_here
from tests.forked import Command, train

SMALL = ["model.hidden=8", "model.layers=1"]


def test_the_folder_keeps_the_contract(quick_run):
    for name in ("config.yaml", "metrics.json", "metrics.csv", "predictions.npz", "report.md", "report.html"):
        assert (quick_run / name).stat().st_size > 0
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/samples.png", "figures/curves.png"):
        assert (quick_run / name).stat().st_size > 0
    assert (quick_run / "samples.npy").exists() and (quick_run / "completions.npy").exists()
    assert list((quick_run / "tensorboard").glob("events.out.tfevents.*"))
    assert not [path for path in quick_run.rglob(".*") if path.is_file()], "half-written files"


def test_metrics_and_config_hold_what_others_rely_on(quick_run):
    metrics = json.loads((quick_run / "metrics.json").read_text())
    names = {
        f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "bits_per_dim", "nats_per_image")
    }
    assert names | {"parameters", "seconds/fit", "seconds/test"} <= metrics.keys()
    assert metrics["test/nats_per_image"] == pytest.approx(metrics["test/bits_per_dim"] * 64 * np.log(2), rel=1e-5)
    assert metrics["test/loss"] == pytest.approx(metrics["test/nats_per_image"] / 64, rel=1e-5)
    config = OmegaConf.load(quick_run / "config.yaml")
    assert config.trainer.precision != "auto" and config.data.seed == config.seed == 0
    assert {"command", "commit", "machine", "torch"} <= config.provenance.keys()
    assert "${" not in (quick_run / "config.yaml").read_text()


def test_test_figures_are_those_of_the_loaded_network(quick_run):
    """Bits per dimension worked out again, in a notebook's way."""
    network, spec, _ = load_run(quick_run)
    predictions = np.load(quick_run / "predictions.npz")
    from datamodules.images.digits import Digits

    data = Digits()
    data.prepare_data()
    images = torch.from_numpy(data.splits["test"].images[: len(predictions["nats"])])
    with torch.no_grad():
        chosen = network(images).log_softmax(1).gather(1, images.long()[:, None])[:, 0]
    nats = -chosen.flatten(1).sum(1)
    np.testing.assert_allclose(predictions["nats"], nats, rtol=1e-5)
    assert np.array_equal(predictions["label"], data.splits["test"].labels[: len(nats)])
    metrics = json.loads((quick_run / "metrics.json").read_text())
    assert metrics["test/bits_per_dim"] == pytest.approx(nats.mean().item() / (spec.dims * np.log(2)), rel=1e-6)


def test_stages_on_a_checkpoint_alone_reproduce_the_figures(quick_run, tmp_path):
    alone = tmp_path / "elsewhere.ckpt"
    shutil.copy(quick_run / "checkpoints/best.ckpt", alone)
    run_here(["stages=[test,sample,report]", f"ckpt_path={alone}"], tmp_path / "again")
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (quick_run, tmp_path / "again"))
    for name in first:
        if not name.startswith("seconds") and name not in ("epochs", "steps"):
            assert again[name] == first[name]
    assert np.array_equal(np.load(quick_run / "samples.npy"), np.load(tmp_path / "again/samples.npy"))


def test_a_run_tested_again_in_its_folder_keeps_its_curves(quick_run, tmp_path):
    folder = Path(shutil.copytree(quick_run, tmp_path / "copy"))
    run_here(["stages=[test,report]", f"ckpt_path={folder}"], folder)
    assert (folder / "metrics.csv").read_text() == (quick_run / "metrics.csv").read_text()
    first, again = (json.loads((run / "metrics.json").read_text()) for run in (quick_run, folder))
    assert first.keys() == again.keys()
    assert all(again[name] == first[name] for name in first if not name.startswith("seconds/"))


def test_a_checkpoint_is_enough_to_draw_from(quick_run, tmp_path, monkeypatch):
    def missing(self):
        raise UsageError("There is no data.")

    monkeypatch.setattr(Digits, "prepare_data", missing)
    run_here(["stages=[sample]", f"ckpt_path={quick_run}"], tmp_path)
    assert np.array_equal(np.load(tmp_path / "samples.npy"), np.load(quick_run / "samples.npy"))
    assert (tmp_path / "figures/samples.png").exists()
    with pytest.raises(UsageError, match="There is no data"):
        run_here(["stages=[test,sample]", f"ckpt_path={quick_run}"], tmp_path)


def test_kept_weights_are_tested_and_drawn_from_but_not_trained_on(quick_run, tmp_path):
    keep_weights(quick_run / "checkpoints/best.ckpt", kept := tmp_path / "best.ckpt")
    assert kept.stat().st_size < 0.5 * (quick_run / "checkpoints/best.ckpt").stat().st_size
    run_here(["stages=[test,sample]", f"ckpt_path={kept}"], tmp_path / "run")
    first, again = (json.loads((run / "metrics.json").read_text()) for run in (quick_run, tmp_path / "run"))
    assert again["test/bits_per_dim"] == first["test/bits_per_dim"]
    with pytest.raises(UsageError, match="holds trained weights alone"):
        run_here(["stages=[fit]", f"ckpt_path={kept}"], tmp_path / "trained")


def test_the_checkpoints_configuration_holds_and_words_win(quick_run, tmp_path):
    words = ["stages=[sample]", f"ckpt_path={quick_run}", "task.module.samples=2", "task.module.temperature=0.5"]
    run_here(words, tmp_path)
    assert len(np.load(tmp_path / "samples.npy")) == 2
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert config.model.hidden == 8 and config.task.module.temperature == 0.5


@pytest.mark.parametrize("word", ["model=row_lstm", "experiment=pixelrnn_cifar10_small"])
def test_another_network_cannot_be_put_on_a_checkpoint(word, quick_run, tmp_path):
    with pytest.raises(UsageError, match="was trained with"):
        run_here(["stages=[test]", f"ckpt_path={quick_run}", word], tmp_path)


def test_the_same_command_gives_the_same_figures(quick_run, tmp_path):
    run_here([*QUICK, *SMALL, "trainer.precision=32-true"], tmp_path)
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (quick_run, tmp_path))
    assert first["test/bits_per_dim"] == second["test/bits_per_dim"]


def test_early_stopping_stops(tmp_path):
    words = [*QUICK, *SMALL, "stages=[fit]", "patience=1", "optimizer.lr=0.0", "trainer.max_epochs=20"]
    run_here(words, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] < 5


def test_patience_goes_on_as_this_command_says(tmp_path):
    words = [*QUICK, *SMALL, "stages=[fit]", "scheduler=constant", "optimizer.lr=0.0"]
    run_here([*words, "patience=0", "trainer.max_epochs=1"], tmp_path)  # its first validation cannot but improve

    def gone_on(patience: int) -> int:
        run_here(["stages=[fit]", f"ckpt_path={tmp_path}", f"patience={patience}", "trainer.max_epochs=6"], tmp_path)
        return json.loads((tmp_path / "metrics.json").read_text())["epochs"]

    assert gone_on(0) == 2, "the second does not improve"
    assert gone_on(0) == 2
    assert gone_on(3) == 4


def test_precision_auto_is_what_the_machine_has():
    assert resolve_precision("16-mixed", "cpu") == ("16-mixed", "as asked")
    assert resolve_precision("auto", "cpu")[0] in ("bf16-mixed", "32-true")


@pytest.mark.parametrize(
    ("flags", "unit"),
    [("avx2 avx512_bf16 amx_bf16 fma", "AMX"), ("avx512f avx512_bf16", "AVX512-BF16"), ("avx512f avx512_bf16x", "")],
)
def test_fast_bf16_is_told_by_the_cpus_flags(flags, unit, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"model name : a CPU\nflags\t\t: fpu {flags}\n")
    assert cpu_bf16_unit(tmp_path / "cpuinfo") == unit
    assert cpu_bf16_unit(tmp_path / "absent") == ""


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    words = [
        *SMALL,
        "model=pixelcnn",
        "hydra.run.dir=run",
        "trainer.max_epochs=15",
        "stages=[fit,test]",
        "patience=null",
    ]
    folder, last = tmp_path / "run", tmp_path / "run/checkpoints/last.ckpt"
    victim = Command(words, tmp_path)
    victim.wait_for(last)
    while read_checkpoint(last)["epoch"] < 2:
        assert victim.running(), "the run ended before it could be killed"
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    victim.ended()
    stopped_at = read_checkpoint(last)["global_step"]
    assert not (folder / "metrics.json").exists()

    done = train("ckpt_path=run/checkpoints/last.ckpt", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "it goes on in the run's own folder"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 15 * 21 and "test/bits_per_dim" in metrics
    steps = [int(row["step"]) for row in rows_of(folder)]
    assert steps == sorted(set(steps)) and min(steps) < stopped_at < max(steps)


def test_a_run_resumed_in_the_middle_of_an_epoch_sees_the_rest_of_it(tmp_path):
    words = ["stages=[fit]", "model=pixelcnn", *SMALL, "model.dropout=0.0", "scheduler=constant"]
    words += ["trainer.max_epochs=2", "trainer.val_check_interval=10", "trainer.limit_val_batches=1"]
    run_here(words, tmp_path / "whole")
    run_here([*words, "trainer.max_steps=31"], tmp_path / "halves")
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=-1"], tmp_path / "halves")
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] == 41
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name
    curves = [[(row["step"], row["train/loss"], row["val/loss"]) for row in rows_of(tmp_path / name) if row["val/loss"]]
              for name in ("whole", "halves")]  # fmt: skip
    assert curves[0] == curves[1] and len(curves[0]) == 4


def test_the_html_report_needs_no_other_file(quick_run):
    page = (quick_run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((quick_run / "figures").glob("*.png")))
    assert 'src="figures' not in page and "http" not in page.replace("http-equiv", "")
    metrics = json.loads((quick_run / "metrics.json").read_text())
    assert f"{metrics['test/bits_per_dim']:.4f}" in page and "independent pixels" in page


@pytest.mark.parametrize(
    "word", ["trainer.max_epochs=9", "scheduler=constant", "optimizer=adam", "optimizer.lr=0.1", "data.batch_size=7"]
)
def test_a_run_cannot_go_on_with_another_schedule(word, quick_run, tmp_path):
    with pytest.raises(UsageError, match="cannot go on with"):
        run_here(["stages=[fit]", f"ckpt_path={quick_run}", word], tmp_path)


def test_the_last_step_is_validated_and_kept(tmp_path):
    words = ["stages=[fit]", "model=pixelcnn", *SMALL, "trainer.max_steps=13", "trainer.val_check_interval=10"]
    run_here(words, tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 13
    assert [row["step"] for row in rows_of(tmp_path) if row["val/bits_per_dim"]] == ["9", "12"]


def test_a_run_whose_epochs_are_cut_short_goes_on_with_whole_ones(tmp_path):
    words = ["stages=[fit]", "model=pixelcnn", *SMALL, "scheduler=constant", "trainer.limit_train_batches=5"]
    run_here([*words, "trainer.max_epochs=1"], tmp_path)
    run_here(["stages=[fit]", f"ckpt_path={tmp_path}", "trainer.max_epochs=3"], tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 15


def test_the_best_checkpoint_is_tested_not_the_last(tmp_path):
    """Training goes uphill, so that each validation is worse than the one before."""
    words = ["stages=[fit,test]", "model=pixelcnn", *SMALL, "scheduler=constant", "optimizer=adam"]
    run_here([*words, "optimizer.lr=0.001", "+optimizer.maximize=true", "trainer.max_epochs=3"], tmp_path)
    validated = [float(row["val/bits_per_dim"]) for row in rows_of(tmp_path) if row["val/bits_per_dim"]]
    assert min(validated) < validated[-1], "the last validation must not be the best, or this test shows nothing"
    best, last = (read_checkpoint(tmp_path / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert best["global_step"] < last["global_step"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val/bits_per_dim"] == pytest.approx(min(validated))
    run_here(["stages=[test]", f"ckpt_path={tmp_path / 'checkpoints/best.ckpt'}"], tmp_path / "again")
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert metrics["test/bits_per_dim"] == again["test/bits_per_dim"]


def test_the_learning_rate_is_one_cycle_over_the_steps(tmp_path):
    words = ["stages=[fit]", "model=pixelcnn", *SMALL, "trainer.max_steps=20", "trainer.log_every_n_steps=1"]
    run_here(words, tmp_path)
    found = [float(row["lr-RMSprop"]) for row in rows_of(tmp_path) if row["lr-RMSprop"]]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    wanted = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=20, cycle_momentum=False)
    for number, value in enumerate(found):
        assert value == pytest.approx(optimizer.param_groups[0]["lr"])
        if number < 19:
            optimizer.step()
            wanted.step()
    assert len(found) == 20


def test_a_diverged_run_says_so(tmp_path):
    with pytest.raises(UsageError, match="Training diverged"):
        run_here(["model=pixelcnn", *QUICK, *SMALL, "optimizer.lr=1e30", "trainer.limit_train_batches=9"], tmp_path)


def test_a_new_run_is_not_mixed_with_an_old_one(quick_run):
    with pytest.raises(UsageError, match="holds a run"):
        run_here([*QUICK, *SMALL], quick_run)


def test_the_checkpoints_data_settings_hold(tmp_path):
    run_here([*QUICK, *SMALL, "stages=[fit]", "data.batch_size=32", "data.eval_batch_size=50"], tmp_path / "run")
    words = ["stages=[test]", f"ckpt_path={tmp_path / 'run'}"]
    run_here([*check_command(words), *words], tmp_path / "again")
    config = OmegaConf.load(tmp_path / "again/config.yaml")
    assert (config.data.batch_size, config.data.eval_batch_size) == (32, 50)


@pytest.mark.slow
def test_two_processes_train_and_test(tmp_path):
    words = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "hydra.run.dir=run", *QUICK, *SMALL]
    done = train("model=pixelcnn", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "test/bits_per_dim" in json.loads((tmp_path / "run/metrics.json").read_text())


def test_the_commit_is_marked_when_other_files_than_the_runs_own_differ(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "running").mkdir(parents=True)
    (checkout / "running/folder.py").write_text("")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", checkout, *words], check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", checkout)
    own = checkout / "my run"
    own.mkdir()
    (own / "config.yaml").write_text("")
    commit = provenance.git_commit(own)
    assert len(commit) == 12 and provenance.git_commit(tmp_path / "elsewhere") == commit + "+"
    (checkout / "running/folder.py").write_text("changed")
    assert provenance.git_commit(own) == commit + "+"
