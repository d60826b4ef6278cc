"""`hydra/sweeper=one_at_a_time`: an ablation, one key after the other, each one's best value carried on to the next.

(`hydra_plugins` has no `__init__.py`: it is a namespace that Hydra's other plugins share.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from reporting.folder import CONF, STAGES_FILE, monitored

PARSER = OverridesParser.create()


class OneAtATime(Sweeper):
    """Every key given several values is a stage, in the order of `params`, then of the command line.

    A stage runs each of its values on top of what the stages before it chose, every seed of `seed=1,2,3` of each, and
    chooses the value with the best mean of the monitored metric; of equal ones the value there was before. A setting
    known from an earlier stage is not run again. Leaves `stages.json` in the sweep's folder.

    Args:
        params: key → values, such as `{optimizer.lr: "0.001,0.01"}`; a word of the command takes the place of its own.

    Raises:
        UsageError: nothing is varied, a group of settings is, or no value of a stage came to a result.
    """

    def __init__(self, params: dict[str, str] | None = None):
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        given = [f"{key}={values}" for key, values in self.params.items()]
        seeds, stages, fixed = plan(PARSER.parse_overrides([*given, *arguments]))
        base = self.hydra_context.config_loader.load_sweep_config(self.config, fixed)
        current = {key: own_value(base, key) for key in stages}
        sign = 1 if monitored(base)[1] == "max" else -1
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")

        scores: dict[str, float] = {}  # of every setting that ran
        told, done = [], 0
        for key, values in stages.items():
            trials = [current | {key: value} for value in values]
            new = [trial for trial in trials if repr(trial) not in scores]
            jobs = [[*fixed, *words(trial, base), *seed] for trial in new for seed in seeds]
            self.validate_batch_is_legal(jobs)
            results = [job.return_value for job in self.launcher.launch(jobs, initial_job_idx=done)] if jobs else []
            done += len(jobs)
            for number, trial in enumerate(new):
                scores[repr(trial)] = sum(results[number * len(seeds) : (number + 1) * len(seeds)]) / len(seeds)
            known = [trial for trial in trials if math.isfinite(scores[repr(trial)])]
            if not known:
                raise UsageError(f"No value of {key} came to a result: there is nothing to carry on; see the summary.")
            carried = max(known, key=lambda trial: (sign * scores[repr(trial)], trial == current))
            told.append({"key": key, "trials": trials, "carried": carried[key]})
            (folder / STAGES_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            current = carried
        return told


def plan(overrides: Sequence[Override]) -> tuple[list[list[str]], dict[str, list[Any]], list[str]]:
    """(the seeds as words for each job, each stage's key and values, the words of every job)."""
    last = {override.get_key_element(): override for override in overrides}  # in place of a former one of its key
    seeds: list[list[str]] = [[]]
    stages, fixed = {}, []
    for key, override in last.items():
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif not override.is_discrete_sweep():
            raise UsageError(f"{key} has no list of values: an ablation needs one, such as {key}=1,2,3.")
        elif key == "seed":
            seeds = [[f"seed={value}"] for value in override.sweep_string_iterator()]
        elif (CONF / key.split("@")[0]).is_dir():
            raise UsageError(f"{key} is a group: an ablation varies single keys, such as optimizer.lr=0.001,0.01.")
        else:
            texts = override.sweep_string_iterator()
            stages[key] = [PARSER.parse_override(f"{key}={text}").value() for text in texts]
    if not stages:
        raise UsageError("An ablation needs keys with several values, such as optimizer.lr=0.001,0.01.")
    return seeds, stages, fixed


def own_value(base: DictConfig, key: str) -> Any:
    """A key's value in plain containers.

    Raises:
        UsageError: it follows another key, and would not stay as its stage left it.
    """
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    if OmegaConf.is_interpolation(node, name):
        told = OmegaConf.to_container(node, resolve=False)[name]
        raise UsageError(f"{key} is {told} here: an ablation varies keys with values of their own; vary that one.")
    value = OmegaConf.select(base, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def words(setting: dict[str, Any], base: Any) -> list[str]:
    """A setting as a command's words, without what is so anyway."""
    differing = {key: value for key, value in setting.items() if value != OmegaConf.select(base, key)}
    return [f"{key}={'null' if value is None else value}" for key, value in differing.items()]
