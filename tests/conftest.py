"""What the tests share: every configuration that conf/ holds, and runs in this process."""

from __future__ import annotations

import os
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from omegaconf import OmegaConf, open_dict

from reporting.folder import CONF
from running.check import check_config
from running.composed import compose_config
from running.configured import final_config
from running.run import execute

# The same examples every time; others by --hypothesis-profile=default.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

REPOSITORY = CONF.parent
TASKS = {path.stem: OmegaConf.load(path).task for path in sorted((CONF / "task").glob("*.yaml"))}
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
PAIRS = [(task, model) for task, node in TASKS.items() for model in node.models]
LARGE = [(task, model) for task, node in TASKS.items() for model in node.get("large_models", [])]  # not to be trained


# What each task's package of tests says of its smallest run.
SMALLEST = {task: import_module(f"tests.{task}.smallest").SMALLEST for task in TASKS}
QUICK = ["debug=quick", "task.module.samples=4", "task.module.completions=2"]


def run_here(words: list[str], folder: Path) -> float:
    """What `python train.py WORDS` does with `folder` as the run's, in this process."""
    composed = compose_config(words)
    hydra_config = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    check_config(composed, hydra_config.runtime.choices.model, hydra_config.runtime.choices.task)
    folder.mkdir(parents=True, exist_ok=True)
    return execute(final_config(composed, hydra_config), folder)


def real_data(name: str) -> Path:
    """The folder of a real data set under ETUDES_DATA; skips the test where it is absent."""
    folder = Path(os.environ.get("ETUDES_DATA", "data")) / name
    if not folder.exists():
        pytest.skip(f"real data {name} is not under ETUDES_DATA")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory) -> Path:
    """The folder of one short run of the default task, all its stages."""
    folder = tmp_path_factory.mktemp("run")
    run_here([*QUICK, "model.hidden=8", "model.layers=1", "trainer.precision=32-true"], folder)
    return folder


seconds: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts each test's seconds for the task whose folder it lies in, or whose name is among its parameters."""
    names = re.split(r"[/\[\]\-]", report.nodeid)
    seconds[next((task for task in TASKS if task in names), "all tasks")] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    told = ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.most_common())
    terminalreporter.write_line(f"seconds: {told}")
