"""Stages that need no trained network: before `fit`, alone, in sweeps, gone on with after a kill, on every process."""

from __future__ import annotations

import json
import logging
import os
import runpy
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import train as command
from datamodules.errors import UsageError
from lightning_modules.pixelrnn import PixelRNN
from reporting.summary.page import write_summary
from tests.conftest import QUICK, REPOSITORY, SMALLEST, TASKS, run_here
from tests.forked import Command, train, train_as_two

SMALL = [*QUICK, "model=pixelcnn", "model.hidden=4", "model.layers=1"]
OWN = [*SMALL, "+task.without_network=[bounds,teacher]", "task.other_stages=[compress,bounds,teacher]"]
OWN += ["+task.stage_monitors={bounds:[bounds/height,max]}", "+task.every_process=[teacher]"]


def stage_bounds(self: PixelRNN, run: Any) -> None:
    (run.folder / f"bounds{self.trainer_rank}").touch()
    run.metrics["bounds/height"] = float(run.config.seed)


def stage_teacher(self: PixelRNN, run: Any) -> None:
    (run.folder / f"teacher{self.trainer_rank}").touch()
    if (asked := Path("kill")).exists():
        asked.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    run.metrics["teacher/loss"] = 1.0


def with_own_stages() -> None:
    """train.py, where pixelrnn has two stages more."""
    PixelRNN.stage_bounds, PixelRNN.stage_teacher = stage_bounds, stage_teacher
    PixelRNN.trainer_rank = property(lambda self: os.environ.get("LOCAL_RANK", "0"))
    command.main()


@pytest.fixture(autouse=True)
def own_stages(monkeypatch):
    monkeypatch.setattr(PixelRNN, "stage_bounds", stage_bounds, raising=False)
    monkeypatch.setattr(PixelRNN, "stage_teacher", stage_teacher, raising=False)
    monkeypatch.setattr(PixelRNN, "trainer_rank", "0", raising=False)


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


OTHERS = {"pixelrnn": ["compress"], "char_lm": ["adapt"]}  # stages that run when asked for
FIGURES_ALONE = ("fit", "test", "bounds", "baselines", "speed", "evaluate")
FEW = {"pixelrnn": ["task.module.compressed=2"], "char_lm": ["task.module.adapt_lr=[0.1]"]}


@pytest.mark.parametrize("task", TASKS)
def test_a_stages_last_line_says_where_its_file_is(task, tmp_path, caplog):
    stages = [*TASKS[task].stages, *OTHERS.get(task, [])]
    words = [f"task={task}", "debug=quick", *SMALLEST[task].words, *FEW.get(task, []), f"stages=[{','.join(stages)}]"]
    with caplog.at_level(logging.INFO):
        run_here(words, tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("lightning_m", "running"))]
    begins = [lines.index(f"stage {stage}") for stage in stages] + [len(lines)]
    for number, stage in enumerate(stages):
        last = lines[begins[number + 1] - 1]
        if stage not in FIGURES_ALONE:
            name, _, path = last.partition(": ")
            assert name == stage and Path(path).is_relative_to(tmp_path) and Path(path).is_file(), last


def test_they_stand_alone_and_are_reported(tmp_path):
    assert run_here([*OWN, "stages=[bounds,report]", "seed=7"], tmp_path) == 7, "judged by what the stage names"
    found = metrics_of(tmp_path)
    assert found["bounds/height"] == 7 and {"seconds/bounds", "parameters"} <= found.keys() and "steps" not in found
    assert "| bounds/height | 7.0000 |" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "metrics.csv").exists()


def test_they_come_before_the_training(tmp_path):
    monitored = run_here([*OWN, "stages=[bounds,fit,test]"], tmp_path)
    found = metrics_of(tmp_path)
    assert monitored == found["val/bits_per_dim"], "a run that trains is judged by the task's own"
    assert {"bounds/height", "test/bits_per_dim", "seconds/fit", "seconds/bounds"} <= found.keys()


@pytest.mark.parametrize("stages", ["test", "bounds,test", "sample,fit", "report", "bounds,sample,fit", "report,fit"])
def test_the_others_need_a_network(stages, tmp_path):
    with pytest.raises(UsageError, match=rf"stages=\[{stages}\] need a trained network: give ckpt_path=…, or put fit"):
        run_here([*OWN, f"stages=[{stages}]"], tmp_path)


def test_a_run_killed_in_one_goes_on_with_it_in_its_folder(tmp_path):
    words = [*OWN, "stages=[bounds,teacher,report]", "hydra.run.dir=run"]
    (tmp_path / "kill").touch()
    assert Command(words, tmp_path, with_own_stages).ended().returncode == -signal.SIGKILL
    (tmp_path / "run/bounds0").unlink()
    done = Command(words, tmp_path, with_own_stages).ended()
    assert done.returncode == 0 and "goes on with teacher, report" in done.stdout, done.stderr
    assert not (tmp_path / "run/bounds0").exists(), "what was done is not done again"
    assert {"bounds/height", "teacher/loss", "seconds/report"} <= metrics_of(tmp_path / "run").keys()
    again = Command(words, tmp_path, with_own_stages).ended()
    assert again.returncode == 0 and "done before" in again.stdout
    other = Command([*words, "seed=3"], tmp_path, with_own_stages).ended()
    assert other.returncode == 1 and "holds another job (seed is 0 there, 3 in this command)" in other.stderr


def test_a_run_killed_before_its_training_goes_on_to_it(tmp_path):
    words = [*OWN, "stages=[bounds,teacher,fit,test]", "hydra.run.dir=run"]
    (tmp_path / "kill").touch()
    assert Command(words, tmp_path, with_own_stages).ended().returncode == -signal.SIGKILL
    done = Command(words, tmp_path, with_own_stages).ended()
    assert done.returncode == 0 and "goes on with teacher, fit, test" in done.stdout, done.stderr
    assert {"bounds/height", "teacher/loss", "test/bits_per_dim"} <= metrics_of(tmp_path / "run").keys()


def test_a_sweep_of_them_is_ranked_and_goes_on(tmp_path):
    words = ["-m", *OWN, "stages=[bounds,teacher]", "seed=1,5,3", "hydra.sweep.dir=sweep"]
    (tmp_path / "kill").touch()
    assert Command(words, tmp_path, with_own_stages).ended().returncode == -signal.SIGKILL
    done = Command(words, tmp_path, with_own_stages).ended()
    assert done.returncode == 0 and "goes on with teacher" in done.stdout, done.stderr
    (summary,) = write_summary([tmp_path / "sweep"], tmp_path / "sweep")
    assert [run.value for run in summary.runs] == [1, 5, 3] and summary.task["mode"] == "max"
    page = (tmp_path / "sweep/summary.md").read_text()
    assert "3 runs: 3 finished." in page and "bounds/height" in page
    again = Command(words, tmp_path, with_own_stages).ended()
    assert again.stdout.count("done before, bounds/height") == 3


def test_a_stage_runs_on_the_first_process_or_on_every(tmp_path):
    words = [*OWN, "stages=[bounds,teacher]", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    for done in train_as_two(*words, "hydra.run.dir=run", folder=tmp_path, program=with_own_stages):
        assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"bounds0", "teacher0", "teacher1"} <= names and "bounds1" not in names


SCRIPT = """
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from lightning_modules.gathering import gathered
from lightning_modules.pixelrnn import PixelRNN

def stage_teacher(self, run):
    rank = run.trainer.global_rank
    Path(run.folder, f"ranks{{rank}}").write_text(str(gathered(rank)))

PixelRNN.stage_teacher = stage_teacher
train = Path({repository!r}) / "train.py"  # under this script's name: the other process runs it too
exec(compile(train.read_text(), train, "exec"))
"""


def test_lightnings_own_processes_meet_in_a_stage_of_every_process(tmp_path):
    """Before `fit` and after it, of a command as a user gives it."""
    (script := tmp_path / "two.py").write_text(SCRIPT.format(repository=str(REPOSITORY)))
    words = [*OWN, "stages=[teacher,fit]", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    program = partial(runpy.run_path, str(script), run_name="__main__")
    done = Command([*words, "hydra.run.dir=run"], tmp_path, program, script).ended()
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"run/ranks{rank}").read_text() for rank in range(2)] == ["[0, 1]"] * 2
    assert "seconds/fit" in metrics_of(tmp_path / "run")
    assert OmegaConf.load(tmp_path / "run/config.yaml").provenance.command.count(" stages=") == 1


@pytest.mark.parametrize("stage", ["test", "report"])
def test_a_tested_folder_is_no_run_of_stages(stage, tmp_path, quick_run):
    """Training in the folder of a mere test begins as it always did."""
    run_here([f"stages=[{stage}]", f"ckpt_path={quick_run}"], tmp_path / "run")
    done = train(*SMALL, "stages=[fit,report]", "hydra.run.dir=run", folder=tmp_path)
    assert done.returncode == 0 and "goes on" not in done.stdout, done.stderr
    assert OmegaConf.load(tmp_path / "run/config.yaml").model.hidden == 4


def test_stages_do_not_write_over_a_trained_run(tmp_path, quick_run):
    folder = Path(shutil.copytree(quick_run, tmp_path / "run"))
    before = (folder / "config.yaml").read_text()
    with pytest.raises(UsageError, match="holds a run: give another hydra"):
        run_here([*OWN, "stages=[bounds]"], folder)
    assert (folder / "config.yaml").read_text() == before


def test_a_training_that_goes_on_does_not_repeat_the_stages_before_it(tmp_path):
    words = [*OWN, "stages=[bounds,fit]", "hydra.run.dir=run", "scheduler=constant"]
    assert Command(words, tmp_path, with_own_stages).ended().returncode == 0
    again = ["ckpt_path=run/checkpoints/last.ckpt", *OWN[len(SMALL) :], "stages=[bounds,fit]", "trainer.max_epochs=2"]
    done = Command(again, tmp_path, with_own_stages).ended()
    assert done.returncode == 0 and "stage bounds" not in done.stdout and "stage fit" in done.stdout, done.stderr


def test_the_words_that_end_a_stage(tmp_path):
    """Ctrl-C in a run without a checkpoint says how its stages go on."""
    words = [*OWN, "stages=[bounds,teacher]", "hydra.run.dir=run"]
    done = Command(words, tmp_path, partial(interrupted, "teacher")).ended()
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == f"Stopped. The run goes on with the same command and hydra.run.dir={tmp_path / 'run'}\n"


def interrupted(stage: str) -> None:
    """train.py, whose `stage` is interrupted."""
    PixelRNN.trainer_rank = "0"
    PixelRNN.stage_bounds = stage_bounds
    setattr(PixelRNN, f"stage_{stage}", lambda self, run: os.kill(os.getpid(), signal.SIGINT))
    command.main()
