"""What results/ keeps: runs, and the settings of sweeps, as RESULTS.md's tables take them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import UsageError
from reporting.folder import task_settings
from reporting.published import text

CLASS_FIGURE = re.compile(r"(?:train|val|test)/([^/]+)/([^/]+)")  # of one class: test/precision/cat
COUNTS = ("seconds/", "parameters", "steps", "epochs")
# Words of a command that say where things lie on one machine.
PLACES = ("hydra.run.dir=", "hydra.sweep.dir=", "paths.", "data.path=", "data.cache=")


@dataclass(frozen=True)
class Kept:
    """A kept run; or one setting of a kept sweep, its figures means over `seeds` seeds.

    `settings` are dotted, groups by their choice; `varied` those in which a sweep's settings differ; `intervals` half
    the 95 % intervals of the means; `not_kept` names figures that were measured and are not in the kept files.
    """

    name: str  # the folder, below results/
    task: str
    data: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    varied: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, float] = field(default_factory=dict)
    seeds: int = 1
    not_kept: Sequence[str] = ()

    @property
    def link(self) -> str:
        """Where it lies, as RESULTS.md links to it."""
        if not self.varied:
            return f"[{self.name}](results/{self.name})"
        return f"[{self.name}](results/{self.name}/summary.md), {' '.join(f'{k}={v}' for k, v in self.varied.items())}"

    def holds(self, run: Kept) -> bool:
        """Is a kept run one of those behind this sweep's setting?"""
        same = portable(self.provenance["command"]) == portable(run.provenance["command"])
        if not self.varied or run.varied or not same:
            return False
        return all(text(run.settings.get(key)) == value for key, value in self.varied.items())


def kept_sweeps(results: Path) -> list[Kept]:
    """Every setting of each kept sweep, by the sweep's name."""
    folders = [path.parent for path in sorted(results.rglob("sweep.yaml"))]
    return [setting for folder in folders for setting in read_sweep(folder, folder.relative_to(results).as_posix())]


def read_sweep(folder: Path, name: str) -> list[Kept]:
    """The settings of a kept sweep: what all its runs share from sweep.yaml, the rest from summary.csv.

    Raises:
        UsageError: one of the files is missing or damaged.
    """
    try:
        record = OmegaConf.to_container(OmegaConf.load(folder / "sweep.yaml"))
        with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [setting_of(row, record, name) for row in rows]
    except (OSError, KeyError, TypeError, ValueError, AttributeError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"'{folder}' holds no kept sweep, or a damaged one: keep the sweep's folder anew.") from error


def setting_of(row: Mapping[str, str], record: Mapping[str, Any], name: str) -> Kept:
    """One line of a sweep's summary.csv: varied keys, seeds, each metric and half its interval."""
    columns = list(row)
    varied = {key: row[key] for key in columns[: columns.index("seeds")]}
    figures = {key: float(value) for key, value in row.items() if key not in varied and value}
    intervals = {key.removesuffix(" ±"): value for key, value in figures.items() if key.endswith(" ±")}
    metrics = {key: value for key, value in figures.items() if key != "seeds" and not key.endswith(" ±")}
    settings = {**record["settings"], **varied}
    more = record.get("not_kept", [])
    return Kept(
        name, record["task"], record["data"], settings, metrics, record["provenance"], varied, intervals,
        int(figures["seeds"]), more,
    )  # fmt: skip


def portable(command: str) -> str:
    """A command without the words that say where things lie on one machine."""
    words = [word for word in command.split() if not word.startswith(PLACES)]
    return " ".join("start=…" if word.startswith("start=/") else word for word in words)


def known_task(name: str) -> dict[str, Any]:
    """What conf/ says of a task now; a kept run's own configuration may be older.

    Raises:
        UsageError: there is no such task any more.
    """
    if not (found := task_settings(name)):
        raise UsageError(f"results/ keeps a run of task={name}, which conf/task/ does not have: take the run out.")
    return found
