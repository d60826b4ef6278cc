"""Runs read back from their folders, and grouped into settings: what a summary is made of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import UsageError
from reporting.figures import read_curves
from reporting.folder import STAGES_FILE, leaves, monitored, read_json, task_settings
from reporting.published import Figure, published_figures, short_keys, text
from reporting.statistics import half_interval, mean

GROUPS = ("model", "data", "optimizer", "adversary_optimizer", "scheduler", "trainer", "experiment", "debug")
# No settings of what is trained: where things lie, who published what, which stages ran.
LEFT_OUT = ("provenance", "paths", "published", "ckpt_path", "stages", "choices", "sweep_name", "seed")


@dataclass
class Run:
    """One run's folder: its configuration (flat, dotted keys; groups by their choice), and what came of it."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    failure: dict[str, str]
    words: list[str]  # the job's own, without seed

    @property
    def choices(self) -> dict[str, str]:
        return self.config["choices"]

    @cached_property
    def task(self) -> dict[str, Any]:
        """What its stages are judged by, and shown metrics; from conf/ where the run's configuration lacks one."""
        known = {"shown": [], **task_settings(self.choices["task"]), **self.config["task"]}
        monitor, mode = monitored(self.config | {"task": known})
        return known | {"monitor": monitor, "mode": mode}

    @property
    def value(self) -> float | None:
        """The monitored metric of its best checkpoint; None without one, or if it is no number."""
        value = self.metrics.get(self.task["monitor"])
        return value if value is not None and math.isfinite(value) else None

    @property
    def state(self) -> str:
        """finished, failed, or unfinished: killed, or still at work."""
        if self.failure:
            return "failed"
        stages = self.config.get("stages") or ["fit"]
        done = "fit" not in stages and all(f"seconds/{stage}" in self.metrics for stage in stages)
        return "finished" if done or self.value is not None else "unfinished"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What distinguishes it from another run, the seed aside."""
        chosen = {group: self.choices.get(group) for group in GROUPS}
        own = {}
        for key, value in leaves(self.config):
            first, last = key.split(".")[0], key.split(".")[-1]
            aside = (
                last in ("seed", "cache")
                or (last.startswith("_") and key != "optimizer._target_")  # which an ablation varies
                or (key == "data.path" and value == self.config["paths"].get("data"))
            )
            if first not in LEFT_OUT and not aside and (first != "task" or key.startswith("task.module.")):
                own[key] = tuple(value) if isinstance(value, list) else value
        return chosen | own

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) pairs of a metric."""
        path = self.folder / "metrics.csv"
        return read_curves(path).get(metric, []) if path.exists() else []


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Every run under these folders, in the order of their names (job 2 before job 10).

    Raises:
        UsageError: there is none.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"There is no folder '{folder}': give a sweep's folder, such as multiruns/pixelrnn/….")
    runs = [run for folder in folders for path in sorted(run_folders(folder), key=natural) if (run := read_run(path))]
    if not runs:
        names = ", ".join(f"'{folder}'" for folder in folders)
        raise UsageError(f"There is no run in {names}: give a folder that `python train.py -m …` wrote.")
    return runs


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders at or below this one that hold a run."""
    if (folder / ".hydra").is_dir() or ((folder / "config.yaml").is_file() and not folder.name.startswith(".")):
        yield folder
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from run_folders(path)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sort key under which numbers in names count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def read_run(folder: Path) -> Run | None:
    """The run in a folder; None if its configuration cannot be read."""
    words = OmegaConf.to_container(load(folder / ".hydra" / "overrides.yaml") or OmegaConf.create([]))
    if (config := load(folder / "config.yaml")) is None:  # it ended before it wrote its own: Hydra's
        config, hydra = load(folder / ".hydra" / "config.yaml"), load(folder / ".hydra" / "hydra.yaml")
        if config is None or hydra is None:
            return None
        config.choices = hydra.hydra.runtime.choices
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return None
    if not {"choices", "task", "data", "paths", "seed"} <= plain.keys():
        return None
    metrics, failure = (read_json(folder / name) for name in ("metrics.json", "failure.json"))
    return Run(folder, plain, metrics, failure, [word for word in words if not word.startswith("seed=")])


def load(path: Path) -> Any:
    """A YAML file as OmegaConf reads it, None where there is none or it is cut."""
    try:
        return OmegaConf.load(path)
    except (FileNotFoundError, YAMLError, OSError):
        return None


def varied_keys(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The keys in which runs differ: those that were varied, and those that only follow from them.

    A key named by a job's own words was varied. Another one follows when the varied keys determine it, as a model's
    choice determines its defaults; otherwise it counts as varied too. (One that only some networks have, the same
    wherever it is, does not count unless it was named.)
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    named = {word.lstrip("+~").split("=", 1)[0] for run in runs for word in run.words}
    differing = [
        key
        for key in keys
        if len({repr(run.settings[key]) for run in runs if key in run.settings}) > 1
        or (key in named and any(key not in run.settings for run in runs))
    ]
    varied, following = [key for key in differing if key in named], []
    for key in differing:
        if key not in varied and not key.endswith("._target_"):  # a group's choice says it
            (following if determined(key, varied, runs) else varied).append(key)
    return varied, following


def determined(key: str, by: Sequence[str], runs: Sequence[Run]) -> bool:
    """Do runs that agree in `by` agree in `key`?"""
    values: dict[tuple[str, ...], str] = {}
    for run in runs:
        place = tuple(repr(run.settings.get(other)) for other in by)
        if values.setdefault(place, repr(run.settings.get(key))) != repr(run.settings.get(key)):
            return False
    return True


def label_of(keys: Mapping[str, Any]) -> str:
    """Keys and values in few letters."""
    names = short_keys(list(keys))
    values = {
        key: text(value).rsplit(".", 1)[-1] if key.endswith("_target_") else text(value) for key, value in keys.items()
    }
    return " ".join(f"{names[key]}={values[key]}" for key in keys)


@dataclass
class Setting:
    """Runs that differ in their seed alone; one run for each seed."""

    keys: dict[str, Any]  # the varied ones
    runs: dict[int, Run] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As words of a command."""
        return " ".join(f"{key}={text(value)}" for key, value in self.keys.items()) or "the one setting"

    @property
    def label(self) -> str:
        """As a figure has room for: the keys' last parts."""
        return label_of(self.keys) or "the one setting"

    def values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs.values() if metric in run.metrics]

    @property
    def monitored(self) -> list[float]:
        return self.values(next(iter(self.runs.values())).task["monitor"])


def group(runs: Sequence[Run], varied: Sequence[str]) -> list[Setting]:
    """The finished runs by setting, the best mean of the monitored metric first; as they come where `task.ranked` is
    false, because each setting's is of other validation data.

    Of two runs with the same seed the later in `runs` counts: it is no second draw.
    """
    settings: dict[str, Setting] = {}
    for run in runs:
        if run.state == "finished" and run.value is not None:
            keys = {key: run.settings.get(key) for key in varied}
            settings.setdefault(repr(keys), Setting(keys)).runs[run.config["seed"]] = run
    if not runs[0].task.get("ranked", True):
        return list(settings.values())
    sign = -1 if runs[0].task["mode"] == "max" else 1
    return sorted(settings.values(), key=lambda setting: sign * mean(setting.monitored))


@dataclass
class Summary:
    """What a folder's runs of one task say.

    `settings` are the finished runs, best first; `varied` the keys in which they differ, `following` those that only
    follow from them; `words` the keys in which all runs differ, failed ones too; `metrics` the monitored one, then the
    test split's.
    """

    runs: list[Run]
    settings: list[Setting]
    varied: list[str]
    following: list[str]
    words: list[str]
    metrics: list[str]
    folder: Path
    pictures: str

    @property
    def task(self) -> dict:
        return self.runs[0].task

    @property
    def ranked(self) -> bool:
        return self.task.get("ranked", True)

    def ended(self, state: str) -> list[Run]:
        return [run for run in self.runs if run.state == state]

    @property
    def published(self) -> list[Figure]:
        """Others' figures that the runs' configurations name."""
        return published_figures(entry for run in self.runs for entry in run.config.get("published") or [])

    @property
    def stages(self) -> list[dict[str, Any]]:
        """What an ablation's sweeper wrote: of each stage its key, its trials and the value carried on."""
        path = self.folder / STAGES_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def read_summaries(folders: Sequence[Path], to: Path) -> list[Summary]:
    """A summary of each task's runs. Raises UsageError when there is no run."""
    tasks: dict[str, list[Run]] = {}
    for run in find_runs(folders):
        tasks.setdefault(run.choices["task"], []).append(run)
    one = len(tasks) == 1
    return [summary_of(runs, to, "figures" if one else f"figures/{task}") for task, runs in tasks.items()]


def summary_of(runs: list[Run], to: Path, pictures: str) -> Summary:
    finished = [run for run in runs if run.state == "finished"]
    varied, following = varied_keys(finished or runs)
    tested = [f"test/{name}" for name in runs[0].task["shown"]]
    metrics = [runs[0].task["monitor"], *(name for name in tested if any(name in run.metrics for run in finished))]
    return Summary(runs, group(runs, varied), varied, following, varied_keys(runs)[0], metrics, to, pictures)


def with_interval(values: Sequence[float]) -> str:
    """`1.7464 ± 0.0021`: mean and half its 95 % interval, of one value only that."""
    if not values:
        return ""
    middle = mean(values)
    places = 4 if abs(middle) < 10 else 2
    return f"{middle:.{places}f}" + (f" ± {half_interval(values):.{places}f}" if len(values) > 1 else "")
