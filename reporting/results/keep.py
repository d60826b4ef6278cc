"""A run, or a sweep, copied into results/.

Kept of a run are its config.yaml without the paths of the machine it ran on, its metrics.json, and figures by name; its
best weights where asked, without what only training needs. Of a sweep's folder the summary is kept, and files by name.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.files import whole_file
from reporting.folder import REPOSITORY, find_checkpoint, read_run, task_class
from reporting.predictions import read_predictions
from reporting.report import write_text
from reporting.results.kept import CLASS_FIGURE, COUNTS, portable
from reporting.runs import Run, Summary, read_summaries
from reporting.summary.page import table_as_csv, write_summary

ELSEWHERE = ("data.path", "data.folder", "start", "task.module.start")  # settings that are places


def keep_either(folder: Path, kept: Path, names: Sequence[str], weights: bool) -> None:
    """Keeps a run, or a sweep: a folder of runs."""
    if (folder / "config.yaml").exists() or not any(folder.glob("*/config.yaml")):
        keep(folder, kept, names, weights)
    elif weights:
        raise UsageError(f"'{folder}' is a sweep's: keep the weights of one of its runs, '{folder}/0' or another.")
    else:
        keep_sweep(folder, kept, names)


def keep(run: Path, kept: Path, figures: Sequence[str], weights: bool = False) -> None:
    """Copies what a run left into results/; figures are names of files in its figures/ folder."""
    config = OmegaConf.to_container(read_run(run)[0])
    for name in figures:
        if not (run / "figures" / name).is_file():
            raise UsageError(f"'{run}' has no figure {name!r}: give names of files in its figures/.")
    for part, keys in {"data": ("path", "folder", "cache"), "paths": ("data", "cache")}.items():
        config[part] = {key: value for key, value in config[part].items() if key not in keys}
    config["ckpt_path"] = portable_checkpoint(config.get("ckpt_path"))
    for name in {"command", "went on with"} & config["provenance"].keys():
        config["provenance"][name] = portable_command(config["provenance"][name])
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if (run / "predictions.npz").exists():
        metrics |= task_class(config["choices"]["task"]).kept_figures(read_predictions(run))
    if not any("/" in name and not name.startswith("seconds/") for name in metrics):
        raise UsageError(f"'{run}' holds no figures: keep a run that was trained or tested, or whose stages measured.")
    best = find_checkpoint(run) if weights else None
    kept.mkdir(parents=True, exist_ok=True)
    write_text(kept / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(kept / "metrics.json", json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    for name in figures:
        shutil.copyfile(run / "figures" / name, kept / name)
    if best:
        keep_weights(best, kept / "best.ckpt")


def portable_command(command: str) -> str:
    """A command without the words that say where things lie on one machine, a checkpoint's path as it is from here."""
    name = "ckpt_path="
    return " ".join(
        f"{name}{portable_checkpoint(word.removeprefix(name)) or '…'}" if word.startswith(name) else word
        for word in portable(command).split()
    )


def portable_checkpoint(path: str | None) -> str | None:
    """A checkpoint's path from the repository; None outside it, where the path says nothing to others."""
    if path is None or not Path(path).is_absolute():
        return path
    inside = Path(path).resolve().is_relative_to(REPOSITORY)
    return Path(path).resolve().relative_to(REPOSITORY).as_posix() if inside else None


def keep_weights(best: Path, kept: Path) -> None:
    """A checkpoint to test and to draw from, without what only training needs."""
    import torch

    from reporting.load import KINDS, read_checkpoint

    checkpoint = read_checkpoint(best)
    config = checkpoint["config"] | {"ckpt_path": None}  # of a run that went on
    content = io.BytesIO()  # torch's own errors of a full disk are no OSErrors
    torch.save({key: checkpoint[key] for key in KINDS} | {"config": config}, content)
    with whole_file(kept) as unfinished:
        unfinished.write_bytes(content.getbuffer())


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
        if key not in ELSEWHERE and all(key in other and other[key] == value for other in others)
    }


def unique(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def portable_text(page: str) -> str:
    """A summary's page, its commands portable."""
    return re.sub(r"(?<=- command: `)[^`]+", lambda match: portable(match[0]), page)
