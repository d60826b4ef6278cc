"""The jobs of a sweep, as words: from the command line, and from a sweep's file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from reporting.folder import monitored
from running.composed import compose_config
from running.sweep import check_same

MANY_JOBS = 12  # composing one takes a quarter of a second


def jobs_of(overrides: Sequence[Override], basic: bool, every: bool) -> list[list[str]]:
    """Each job's words; where they are many, or chosen by results, words in which every value occurs once."""
    if basic:
        jobs = BasicSweeper.split_arguments(list(overrides), None)[0]
        if every or len(jobs) <= MANY_JOBS:
            return jobs
    values = {word.get_key_element(): values_of(word) for word in overrides}
    first = {key: found[0] for key, found in values.items()}
    settings = [first] + [first | {key: value} for key, found in values.items() for value in found[1:]]
    return [[f"{key}={value}" for key, value in setting.items()] for setting in settings]


def values_of(word: Override) -> list[str]:
    """A word's values as texts; the ends of an interval."""
    if not word.is_sweep_override():
        return [word.get_value_element_as_str()]
    if word.is_discrete_sweep():
        return list(word.sweep_string_iterator())
    interval = word.value()
    return [str(interval.start), str(interval.end)]


def sweeper_of(overrides: Sequence[Override]) -> str:
    """The sweeper's class."""
    return compose_config(own_words(overrides)).hydra.sweeper._target_


def own_words(overrides: Sequence[Override]) -> list[str]:
    """The words that choose a sweep file, or set something of Hydra's."""
    return [word.input_line for word in overrides if re.match(r"sweep$|hydra[./]", word.key_or_group)]


def words_of_sweep_file(overrides: Sequence[Override]) -> tuple[list[str], list[str]]:
    """A sweep file's parameters as words, and words that put them on the command line without those it gives itself.

    (Hydra would run every value of both.) The second list is empty when the command line gives none of them.
    """
    sweeper = OmegaConf.to_container(compose_config(own_words(overrides)).hydra.sweeper)
    if not sweeper.get("params"):
        return [], []
    named = {override.key_or_group for override in overrides}
    kept = [f"{key}={value}" for key, value in sweeper["params"].items() if key not in named]
    if len(kept) == len(sweeper["params"]) or not sweeper["_target_"].endswith("BasicSweeper"):
        return kept, []  # other sweepers let the command's words win by themselves
    return [], ["hydra.sweeper.params=null", *kept]


def words_of_search(config: DictConfig, overrides: Sequence[Override]) -> list[str]:
    """What Optuna's sweeper cannot know, where the command does not say it.

    Its direction is the task's; it draws by the run's seed, so that a search goes on in its folder; and no failed job
    ends it.
    """
    sweeper, named = config.hydra.sweeper, {override.key_or_group for override in overrides}
    if "optuna" not in sweeper._target_:
        return []
    words = {"direction": f"{monitored(config)[1]}imize", "max_failure_rate": 1.0}
    if "seed" in (sweeper.sampler or {}):
        words["sampler.seed"] = config.seed
    return [f"hydra.sweeper.{key}={value}" for key, value in words.items() if f"hydra.sweeper.{key}" not in named]


def check_job_folder(config: DictConfig, number: int) -> None:
    """Raises UsageError when the folder of a sweep's job holds another configuration's run."""
    with open_dict(config):
        config.hydra.job.num = number
        folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    check_same(own, folder)
