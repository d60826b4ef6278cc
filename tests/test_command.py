"""train.py as a user runs it: mistakes are one sentence on stderr, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from running.check import check_command
from tests.conftest import MODELS, QUICK, REPOSITORY


def train(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *words],
        cwd=folder,
        env={**os.environ, "ETUDES_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


MISTAKES = [
    (["model=diag_lstm"], "There is no model=diag_lstm (did you mean 'diag_bilstm'?)"),
    (["task=pixelrn"], "There is no task=pixelrn (did you mean 'pixelrnn'?): choose one of char_lm, "),
    (["trainer.max_epoch=3"], "There is no option 'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)"),
    (["modle=pixelcnn"], "There is no option 'modle' (did you mean 'model'?)"),
    (["model.hidden=wide"], "model.hidden is 'wide', but it must be a whole number, such as 48."),
    (["optimizer.lr=fast"], "optimizer.lr is 'fast', but it must be a number"),
    (["seed=-1"], "seed is -1"),
    (
        ["stages=[tset]"],
        "There is no stage 'tset' in task=pixelrnn: choose from fit, test, sample, complete, report, compress.",
    ),
    (["stages=[test]"], "need a trained network: give ckpt_path="),
    (["ckpt_path=nowhere.ckpt"], "There is no checkpoint 'nowhere.ckpt'"),
    (["model=pixelcnn,row_lstm"], "add -m to run them all"),
    (["model.hidden=null"], "model.hidden is null, but it must be a whole number"),
    (["trainer.max_epochs=0"], "trainer.max_epochs is 0, but it must be above 0."),
    (["model=null"], "Config group override must be a string"),
    (["stages=[test,fit]"], "need a trained network"),
    (["ckpt_path=1"], "There is no checkpoint '1'"),
    (["-m", "ckpt_path=a,b"], "give one checkpoint"),
    (["a=b=["], "The command cannot be read"),
    (["-m", "seed=1,2", "model=pixelcnn,nonsense"], "There is no model=nonsense"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_in_three_seconds(words, message, tmp_path):
    started = time.perf_counter()
    done = train(*words, folder=tmp_path)
    assert time.perf_counter() - started < 3
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert not list(tmp_path.iterdir()), "a mistake must leave nothing behind"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=cifar10", "paths.data=nowhere"], "data=digits"),
        (["model.first_kernel=4"], "model.first_kernel is 4"),
        (["trainer.precision=17"], "These trainer settings cannot work: Precision '17' is invalid"),
        (["trainer.devices=999"], "trainer.devices is 999"),
        (["trainer.val_check_interval=500"], "an epoch has 21"),
        (["optimizer.lr=-1"], "Invalid learning rate: -1"),
        (["task.module.temperature=0"], "it must be above 0"),
        (["ckpt_path=damaged.ckpt"], "'damaged.ckpt' cannot be read as a checkpoint"),
    ],
)
def test_a_mistake_that_needs_torch_is_one_sentence_too(words, message, tmp_path):
    (tmp_path / "damaged.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    done = train(*words, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_model_of_another_task_is_refused(tmp_path, monkeypatch):
    done = train("task=classification", "model=pixelcnn", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "model=pixelcnn is no network of task=classification: choose one of cnn, vit.\n"


def test_help_shows_groups_choices_and_five_examples(tmp_path):
    shown = train("--help", folder=tmp_path).stdout
    assert shown.count("\n  python train.py") == 5
    models = next(line for line in shown.splitlines() if line.startswith("model: "))
    assert models.removeprefix("model: ").split(", ") == MODELS and "max_epochs: 30" in shown


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--info", "defaults"]])
def test_hydras_own_questions_are_answered(words, tmp_path):
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0 and "pixelrnn" in done.stdout


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_job_that_fails(tmp_path):
    words = [*QUICK, "model=pixelcnn", "stages=[fit]", "model.first_kernel=4,3", "hydra.sweep.dir=sweep"]
    done = train("-m", *words, folder=tmp_path)
    assert done.returncode == 0
    assert "needs a centre" in (tmp_path / "sweep/0/failure.json").read_text()
    assert (tmp_path / "sweep/1/metrics.json").exists() and not (tmp_path / "sweep/1/failure.json").exists()


def test_the_sweep_file_means_its_jobs():
    assert check_command(["sweep=pixelrnn_models"]) == []
