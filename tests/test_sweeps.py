"""Sweeps as a user runs them: failures, a kill, going on, and a sweep file's own parameters."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.errors import UsageError
from reporting.folder import CONF
from reporting.summary import write_summary
from running import sweep
from running.check import check_command, compose_config
from tests.conftest import run_here
from tests.forked import Command, train

SMALL = ["model=pixelcnn", "model.hidden=6", "model.layers=1", "task.module.snapshots=0"]
SWEEP = ["-m", *SMALL, "debug=quick", "stages=[fit,test]", "hydra.sweep.dir=sweep"]


def test_a_sweep_with_failures_ends_with_its_summary_and_goes_on(tmp_path):
    """Job 0 is fine, job 1 diverges, job 2 is impossible, as job 3; then the same command again."""
    words = [*SWEEP, "trainer.limit_train_batches=9", "model.first_kernel=7,4", "optimizer.lr=0.003,1e30"]
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "sweep/summary.md").read_text()
    assert "4 runs: 1 finished, 3 failed." in page
    assert "- **1**: Training diverged" in page and "- **2, 3**: model.first_kernel is 4" in page
    assert done.stdout.splitlines()[-1] == f"summary: {tmp_path / 'sweep/summary.html'}"
    before = (tmp_path / "sweep/0/metrics.json").stat().st_mtime_ns
    again = train(*words, folder=tmp_path)
    assert again.stdout.count("done before") == 1 and again.stdout.count("starts anew: Training diverged") == 1
    assert (tmp_path / "sweep/0/metrics.json").stat().st_mtime_ns == before
    assert "4 runs: 1 finished, 3 failed." in (tmp_path / "sweep/summary.md").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["sweep"]

    other = train(*words, "model.kernel=5", folder=tmp_path)
    assert other.returncode == 1 and other.stderr.count("\n") == 1
    assert "holds another job (model.kernel is 3 there, 5 in this command)" in other.stderr


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sweep_goes_on_where_it_was(stop, tmp_path):
    words = ["-m", *SMALL, "stages=[fit]", "hydra.sweep.dir=sweep", "trainer.max_epochs=2,30", "patience=null"]
    victim = Command(words, tmp_path)
    victim.wait_for(tmp_path / "sweep/1/checkpoints/last.ckpt")
    os.kill(victim.pid, stop)
    ended = victim.ended(60)
    assert ended.returncode != 0
    assert (tmp_path / "sweep/summary.html").exists() == (stop == signal.SIGINT)
    if stop == signal.SIGINT:
        assert "1 finished, 1 unfinished" in ended.stdout
        return
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before") == 1 and "goes on from" in done.stdout
    metrics = [json.loads((tmp_path / f"sweep/{job}/metrics.json").read_text()) for job in (0, 1)]
    assert [figures["steps"] for figures in metrics] == [2 * 21, 30 * 21]
    steps = [int(line.split(",")[0]) for line in (tmp_path / "sweep/1/metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps)) and steps[0] < 42, "its curve from the start, each step once"
    assert "2 runs: 2 finished." in (tmp_path / "sweep/summary.md").read_text()


def test_one_diverged_one_impossible_one_killed(tmp_path):
    """Jobs 0 and 2 by rate with a kernel that works, 1 and 3 with an impossible one; the process is killed in job 4."""
    words = ["-m", *SMALL, "stages=[fit,test]", "hydra.sweep.dir=sweep", "trainer.max_epochs=8"]
    victim = Command([*words, "optimizer.lr=0.003,1e30,0.002", "model.first_kernel=7,4"], tmp_path)
    victim.wait_for(tmp_path / "sweep/4/checkpoints/last.ckpt")
    os.kill(victim.pid, signal.SIGKILL)
    victim.ended(60)
    (summary,) = write_summary([tmp_path / "sweep"], tmp_path / "sweep")
    page = (tmp_path / "sweep/summary.md").read_text()
    assert "5 runs: 1 finished, 3 failed, 1 unfinished." in page
    assert "- **2**: Training diverged: the loss is " in page
    assert "- **1, 3**: model.first_kernel is 4" in page
    assert "- **4** `" in page and "goes on from its last checkpoint" in page
    metrics = json.loads((tmp_path / "sweep/0/metrics.json").read_text())
    assert summary.settings[0].monitored == [metrics["val/bits_per_dim"]] and "test/bits_per_dim" in metrics


def test_a_sweeps_folder_is_one_processs(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "folders", [])
    monkeypatch.setattr(sweep, "locks", [])
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
    first = sweep.TakeFolder()
    first.on_multirun_start(config)
    pickle.dumps(first)  # launchers hand it to other processes
    with pytest.raises(SystemExit, match="Another process works in"):
        sweep.TakeFolder().on_multirun_start(config)
    assert sweep.folders == [tmp_path / "sweep"], "the second must not write the first one's summary"
    config.hydra.sweep.dir = str(tmp_path / "other")
    sweep.TakeFolder().on_multirun_start(config)
    monkeypatch.setenv("LOCAL_RANK", "1")  # the second process of a sweep that trains with ddp
    sweep.TakeFolder().on_multirun_start(config)
    assert sweep.folders == [tmp_path / "sweep", tmp_path / "other"]
    sweep.locks[0].release()
    config.hydra.sweep.dir = str(tmp_path / "sweep")
    monkeypatch.delenv("LOCAL_RANK")
    sweep.TakeFolder().on_multirun_start(config)


def test_a_sweep_over_tasks_has_one_folder(monkeypatch):
    monkeypatch.setenv("ETUDES_STAMP", "now")
    words = ["-m", "task=pixelrnn,classification"]
    (added,) = check_command(words)
    assert added == "hydra.sweep.dir='multiruns/tasks/${oc.env:ETUDES_STAMP}'"
    assert check_command([*words, "hydra.sweep.dir=mine/${oc.env:ETUDES_STAMP}"]) == []


def test_a_limited_epoch_is_validated_or_refused(tmp_path):
    assert compose_config(["sweep=char_split", "debug=quick"]).trainer.val_check_interval == 1.0
    with pytest.raises(UsageError, match="val_check_interval is 5 batches, but an epoch has 2"):
        run_here([*SMALL, "debug=quick", "trainer.val_check_interval=5"], tmp_path)


@pytest.mark.parametrize("choice", ["hydra/sweeper=optuna", "hydra/launcher=joblib", "hydra/launcher=submitit_local"])
def test_a_plugin_that_is_not_there_is_named(choice):
    name = choice.split("=")[1]
    plugin = {"optuna": "hydra_optuna_sweeper", "joblib": "hydra_joblib_launcher"}.get(name, "hydra_submitit_launcher")
    if importlib.util.find_spec(f"hydra_plugins.{plugin}"):
        pytest.skip("it is installed")
    with pytest.raises(UsageError, match=rf"{choice} needs more packages: pip install -e '\.\[(search|parallel)\]'"):
        check_command(["-m", choice, "seed=1,2"])


def composed(folder: Path):
    """The configuration of a finished run as a sweep's command composes it again."""
    config = OmegaConf.load(folder / "config.yaml")
    config.trainer.precision, config.ckpt_path = "auto", None
    return config


@pytest.fixture(scope="module")
def done_job(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    run_here([*SMALL, "debug=quick", "stages=[fit,test]"], folder)
    return folder


def test_a_done_job_returns_its_metric(done_job):
    metrics = json.loads((done_job / "metrics.json").read_text())
    config = composed(done_job)
    assert sweep.go_on(config, done_job) == metrics["val/bits_per_dim"]
    config.data["_target_"] = "datamodules.earlier.Digits"  # where another version had it
    assert sweep.go_on(config, done_job) == metrics["val/bits_per_dim"]


def test_only_the_missing_stages_run(done_job):
    config = composed(done_job)
    config.stages = ["fit", "test", "report"]
    assert sweep.go_on(config, done_job) is None
    assert config.stages == ["report"] and config.ckpt_path.endswith("best.ckpt")


def test_another_configuration_is_refused_and_nothing_is_touched(done_job):
    config = composed(done_job)
    config.optimizer.lr = 0.5
    before = sorted(done_job.rglob("*"))
    with pytest.raises(UsageError, match=r"optimizer\.lr is 0\.003 there, 0\.5 in this command"):
        sweep.go_on(config, done_job)
    assert sorted(done_job.rglob("*")) == before


def test_a_half_written_checkpoint_starts_anew(done_job, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text((done_job / "config.yaml").read_text())
    (tmp_path / "checkpoints/last.ckpt").write_bytes((done_job / "checkpoints/last.ckpt").read_bytes()[:1000])
    config = composed(done_job)
    assert sweep.go_on(config, tmp_path) is None and config.ckpt_path is None
    assert not (tmp_path / "checkpoints").exists()


def test_the_hparams_tab_has_the_final_figures(done_job):
    events = EventAccumulator(str(done_job / "tensorboard")).Reload()
    metrics = json.loads((done_job / "metrics.json").read_text())
    for name in ("val/bits_per_dim", "test/bits_per_dim"):
        (event,) = events.Scalars(f"final/{name}")
        assert event.value == pytest.approx(metrics[name])
    assert "hp_metric" not in events.Tags()["scalars"]
    start_info = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model.hidden" in start_info and b"optimizer.lr" in start_info


@pytest.mark.parametrize("file", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_every_sweep_file_can_run(file):
    assert check_command([f"sweep={file}"]) == []


def test_a_word_takes_the_place_of_a_sweep_files_own():
    added = check_command(["sweep=pixelrnn_depth", "model.layers=1,2"])
    assert added == ["hydra.sweeper.params=null", "seed=1,2,3"]
    parameters = compose_config(["sweep=pixelrnn_depth", *added[:1]]).hydra.sweeper.params
    assert parameters is None, "or Hydra would run every value of both"


def test_a_sweep_files_impossible_parameter_is_refused_before_the_first_job():
    words = ["sweep=pixelrnn_models", "hydra.sweeper.params={model:'pixelcnn,nonsense'}"]
    with pytest.raises(UsageError, match="There is no model=nonsense"):
        check_command(words)
