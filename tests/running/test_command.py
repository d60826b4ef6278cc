"""train.py as a user runs it: mistakes are one sentence on stderr, and nothing is left behind."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from running.check import check_command
from tests.conftest import MODELS, QUICK, REPOSITORY
from tests.forked import Command, train


def python(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """`python train.py WORDS`, a process from its very start."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *words],
        cwd=folder,
        env={**os.environ, "ETUDES_CACHE": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


# One of each kind; test_bad_input.py has the rest, in one process.
MISTAKES = [
    (["model=diag_lstm"], "There is no model=diag_lstm (did you mean 'diag_bilstm'?)"),
    (["optimizer.lr=fast"], "optimizer.lr is 'fast', but it must be a number"),
    (["-m", "seed=1,2", "model=pixelcnn,nonsense"], "There is no model=nonsense"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_in_three_seconds(words, message, tmp_path):
    started = time.perf_counter()
    done = python(*words, folder=tmp_path)
    assert time.perf_counter() - started < 3
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert not list(tmp_path.iterdir()), "a mistake must leave nothing behind"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=cifar10", "paths.data=nowhere"], "data=digits"),
        (["ckpt_path=damaged.ckpt"], "'damaged.ckpt' cannot be read as a checkpoint"),
    ],
)
def test_a_mistake_that_needs_torch_is_one_sentence_too(words, message, tmp_path):
    (tmp_path / "damaged.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    done = train(*words, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.ckpt"], "a mistake must leave nothing behind"


def test_a_model_of_another_task_is_refused(tmp_path, monkeypatch):
    done = train("task=classification", "model=pixelcnn", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "model=pixelcnn is no network of task=classification: choose one of cnn, vit, resnet, "
    )
    assert done.stderr.count("\n") == 1


TOOLS = ["reporting.compare", "lightning_modules.char_lm.leakage"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_mistake_in_a_tools_words_is_one_sentence(tool, tmp_path):
    done = Command([str(tmp_path / "nowhere")], tmp_path, partial(runpy.run_module, tool, run_name="__main__")).ended()
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_help_shows_groups_choices_and_five_examples(tmp_path):
    shown = train("--help", folder=tmp_path).stdout
    assert shown.count("\n  python train.py") == 5
    models = next(line for line in shown.splitlines() if line.startswith("model: "))
    assert models.removeprefix("model: ").split(", ") == MODELS and "max_epochs: 30" in shown


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--info", "defaults"]])
def test_hydras_own_questions_are_answered(words, tmp_path):
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0 and "pixelrnn" in done.stdout


def test_a_sweep_goes_on_past_a_job_that_fails(tmp_path):
    words = [*QUICK, "model=pixelcnn", "stages=[fit]", "model.first_kernel=4,3", "hydra.sweep.dir=sweep"]
    done = train("-m", *words, folder=tmp_path)
    assert done.returncode == 0
    assert "needs a centre" in (tmp_path / "sweep/0/failure.json").read_text()
    assert (tmp_path / "sweep/1/metrics.json").exists() and not (tmp_path / "sweep/1/failure.json").exists()


def test_the_sweep_file_means_its_jobs():
    assert check_command(["sweep=pixelrnn_models"]) == []
