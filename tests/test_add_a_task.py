"""README's "Add a task", followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

COPIED = ("conf", "datamodules", "lightning_modules", "reporting", "running", "tests", "train.py", "pyproject.toml")
PATH = re.compile(r"# ((?:conf|lightning_modules|tests)/\S+\.(?:py|yaml))\n")


def recipe() -> str:
    """The section, heading and all."""
    return re.search(r"^## Add a task\n.*?(?=^## )", (REPOSITORY / "README.md").read_text("utf-8"), re.M | re.S)[0]


def files_of(section: str) -> dict[str, str]:
    """Path → text: in the section's code blocks a line with nothing but a path begins a file."""
    found = {}
    for block in re.findall(r"^```\w+\n(.*?)^```$", section, re.M | re.S):
        before, *parts = PATH.split(block)
        assert not before, "a block begins with a file's path"
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project with the recipe's files in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for path, text in files_of(recipe()).items():
        assert not (folder / path).exists(), "a task is added without changing what is there"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def python(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_recipe_is_short_and_complete():
    section = recipe()
    assert len(section.rstrip().splitlines()) <= 40 and max(map(len, section.splitlines())) <= 120
    assert [path.split("/")[0] for path in sorted(files_of(section))] == ["conf", "conf", "lightning_modules", "tests"]


def test_its_command_trains_tests_and_reports(copy):
    command = re.search(r"`python (train\.py task=\w+)`", recipe())[1].split()
    python(copy, *command, "trainer.max_epochs=8", "hydra.run.dir=run")
    metrics = json.loads((copy / "run/metrics.json").read_text())
    kept = np.load(copy / "run/predictions.npz")["loss"]
    assert kept.shape == (360,) and metrics["test/loss"] == pytest.approx(kept.mean(), rel=1e-6)
    assert metrics["val/loss"] < 0.09, "better than leaving the noise in"
    assert f"| test/loss | {metrics['test/loss']:.4f} |" in (copy / "run/report.md").read_text()


def test_the_tests_find_it(copy):
    words = ["tests/test_configs.py", "-p", "no:cacheprovider", "-k", "denoising or claimed", "-rA"]
    shown = python(copy, "-m", "pytest", *words)
    for name in ("instantiates_from_a_bare_composition", "pair_fits_tests_reports_and_reloads"):
        assert re.search(rf"PASSED .*{name}\[denoising-linear\]", shown)
