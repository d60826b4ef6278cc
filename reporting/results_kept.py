"""What results/ keeps: runs, and the settings of sweeps, as RESULTS.md's tables take them."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import UsageError
from reporting.folder import task_settings
from reporting.published import text
from reporting.report import write_text
from reporting.runs import Run, Summary, read_summaries
from reporting.summary import table_as_csv, write_summary

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


def keep_sweep(sweep: Path, kept: Path, files: Sequence[str]) -> None:
    """Copies a sweep into results/: its summary, what all its runs share, every figure's mean for each setting.

    Args:
        sweep: its folder, whose summary is written anew.
        kept: where it goes.
        files: names of other files in it to keep, such as leakage.md.

    Raises:
        UsageError: no run has finished, runs are of several tasks or data sets, or a file is not there.
    """
    for name in files:
        if not (sweep / name).is_file():
            raise UsageError(f"'{sweep}' has no file {name!r}: give names of files in it.")
    summaries = read_summaries([sweep], sweep)
    kinds = {(run.choices["task"], run.choices["data"]) for summary in summaries for run in summary.runs}
    if len(kinds) > 1 or not summaries[0].settings:
        raise UsageError(f"'{sweep}' is no sweep to keep: it needs finished runs, all of one task and one data set.")
    (summary,) = write_summary([sweep], sweep)
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copytree(sweep / "figures", kept / "figures", dirs_exist_ok=True)
    for name in files:
        shutil.copyfile(sweep / name, kept / name)
    page = re.sub(r"\[(\d+)\]\(\d+/report\.html\)", r"\1", (sweep / "summary.md").read_text(encoding="utf-8"))
    write_text(kept / "summary.md", portable_text(page))
    write_text(kept / "summary.csv", table_as_csv([replace(summary, metrics=all_metrics(summary))]))
    write_text(kept / "sweep.yaml", OmegaConf.to_yaml(OmegaConf.create(sweep_record(summary))))


def all_metrics(summary: Summary) -> list[str]:
    """The monitored metric, the shown ones, then every other but those of single classes."""
    found = {name for setting in summary.settings for run in setting.runs.values() for name in run.metrics}
    others = [name for name in sorted(found) if not name.startswith(COUNTS) and not CLASS_FIGURE.fullmatch(name)]
    return list(dict.fromkeys([*summary.metrics, *others]))


def sweep_record(summary: Summary) -> dict[str, Any]:
    """sweep.yaml: task, data, the settings that all finished runs share, and where the runs come from."""
    runs = [run for setting in summary.settings for run in setting.runs.values()]
    records = [run.config.get("provenance", {}) for run in runs]
    provenance = {
        "command": portable(records[0].get("command", "")),
        "machine": "; ".join(unique(record.get("machine") for record in records)),
        "commit": ", ".join(unique(record.get("commit") for record in records)),
    }
    choices = runs[0].choices
    return {
        "task": choices["task"], "data": choices["data"], "settings": shared(runs), "provenance": provenance,
    }  # fmt: skip


def shared(runs: Sequence[Run]) -> dict[str, Any]:
    """The settings in which these runs agree, without paths."""
    first, *others = (run.settings for run in runs)
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in first.items()
        if key != "data.path" and all(key in other and other[key] == value for other in others)
    }


def unique(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def portable(command: str) -> str:
    """A command without the words that say where things lie on one machine."""
    return " ".join(word for word in command.split() if not word.startswith(PLACES))


def portable_text(page: str) -> str:
    """A summary's page, its commands portable."""
    return re.sub(r"(?<=- command: `)[^`]+", lambda match: portable(match[0]), page)


def known_task(name: str) -> dict[str, Any]:
    """What conf/ says of a task now; a kept run's own configuration may be older.

    Raises:
        UsageError: there is no such task any more.
    """
    if not (found := task_settings(name)):
        raise UsageError(f"results/ keeps a run of task={name}, which conf/task/ does not have: take the run out.")
    return found
