"""lightning_modules/README.md, "Add a task", followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.forked import Command
from tests.test_imports import LAYERS

COPIED = ("conf", "datamodules", "lightning_modules", "reporting", "running", "tests", "train.py", "pyproject.toml")
PATH = re.compile(r"# ((?:conf|lightning_modules|tests)/\S+\.(?:py|yaml))\n")


def recipe() -> str:
    return (REPOSITORY / "lightning_modules" / "README.md").read_text("utf-8")


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


def in_the_copy(run: Callable[[], object]) -> None:
    """Runs what has not been imported from the project, in a process that is to import it from this folder."""
    for name in [name for name in sys.modules if name.split(".")[0] in LAYERS and name != __name__]:
        del sys.modules[name]
    sys.path.insert(0, os.getcwd())
    run()


def run_train() -> None:
    import_module("train").main()


def run_pytest() -> None:
    sys.exit(pytest.main(sys.argv[1:]))


def output(folder: Path, run: Callable[[], object], *words: str) -> str:
    done = Command(words, folder, partial(in_the_copy, run), script=folder / "train.py").ended()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_recipe_is_short_and_complete():
    section = recipe()
    assert len(section.rstrip().splitlines()) <= 40 and max(map(len, section.splitlines())) <= 120
    assert [path.split("/")[0] for path in sorted(files_of(section))] == ["conf", "conf", "lightning_modules", "tests"]


def test_its_command_trains_tests_and_reports(copy):
    word = re.search(r"`python train\.py (task=\w+)`", recipe())[1]
    output(copy, run_train, word, "trainer.max_epochs=8", "hydra.run.dir=run")
    metrics = json.loads((copy / "run/metrics.json").read_text())
    kept = np.load(copy / "run/predictions.npz")["loss"]
    assert kept.shape == (360,) and metrics["test/loss"] == pytest.approx(kept.mean(), rel=1e-6)
    assert metrics["val/loss"] < 0.09, "better than leaving the noise in"
    assert f"| test/loss | {metrics['test/loss']:.4f} |" in (copy / "run/report.md").read_text()


def test_the_tests_find_it(copy):
    words = ["tests/test_configs.py", "-p", "no:cacheprovider", "-k", "denoising or claimed", "-rA"]
    shown = output(copy, run_pytest, *words)
    for name in ("instantiates_from_a_bare_composition", "pair_fits_tests_reports_and_reloads"):
        assert re.search(rf"PASSED .*{name}\[denoising-linear\]", shown)
