"""What the tests share: every configuration that conf/ holds, and runs in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from datamodules.spec import ImageSpec, Spec, TextSpec
from running.check import CONF, check_config, compose_config
from running.configured import final_config
from running.run import execute

REPOSITORY = CONF.parent
TASKS = {path.stem: OmegaConf.load(path).task for path in sorted((CONF / "task").glob("*.yaml"))}
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
PAIRS = [(task, model) for task, node in TASKS.items() for model in node.models]


@dataclass(frozen=True)
class Smallest:
    """What the tests of every configuration need of a task: its smallest run, and what its networks map to what."""

    words: list[str]
    spec: Spec
    inputs: Callable[[Spec], Tensor]
    output: Callable[[Spec, int], tuple[int, ...]]  # of a batch of so many


SMALLEST = {
    "classification": Smallest(
        ["model.filters=4", "model.depth=3"],
        ImageSpec(3, 9, 8, 256, classes=5),
        lambda spec: torch.zeros(2, *spec.shape, dtype=torch.uint8),
        lambda spec, batch: (batch, spec.classes),
    ),
    "pixelrnn": Smallest(
        ["task.module.samples=4", "task.module.completions=2", "model.hidden=6", "model.layers=1"],
        ImageSpec(3, 5, 4, 7),
        lambda spec: torch.zeros(2, *spec.shape, dtype=torch.uint8),
        lambda spec, batch: (batch, spec.levels, *spec.shape),
    ),
    "char_lm": Smallest(
        ["task.module.length=20", "model.hidden=6", "model.embedding=5", "data.window=32"],
        TextSpec("\n abc"),
        lambda spec: torch.zeros(2, 7, dtype=torch.int64),
        lambda spec, batch: (batch, 7, len(spec.tokens)),
    ),
    "multitask": Smallest(
        ["model.widths=[4,5]", "model.hidden=6"],
        ImageSpec(3, 9, 8, 256, classes=5, supers=(0, 0, 1, 1, 2), groups=(0, 0, 0, 0, 1)),
        lambda spec: torch.zeros(2, *spec.shape, dtype=torch.uint8),
        lambda spec, batch: (batch, spec.classes),
    ),
    "scratch_mlp": Smallest(
        ["model.hidden=[6,5]"],
        ImageSpec(1, 5, 4, 17, classes=3),
        lambda spec: torch.zeros(2, *spec.shape, dtype=torch.uint8),
        lambda spec, batch: (batch, spec.classes),
    ),
}
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
