"""A sweep, or a run of stages, started again in its folder: what is done stays, what is missing runs."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from datamodules.errors import UsageError
from reporting.folder import leaves, monitored, read_json
from reporting.targets import moved

log = logging.getLogger(__name__)

# What two starts of one job may differ in: where data lies, what was done, words for the report.
FREE = ("ckpt_path", "stages", "paths", "published", "choices", "provenance", "sweep_name", "data.cache")
REMAINS = ("checkpoints", "tensorboard", "snapshots", "metrics.csv", "metrics.json", "config.yaml")

folders: list[Path] = []  # of the sweeps that this process ran
locks: list[FileLock] = []  # on them, held until the process ends, however it ends; not the callback's: that is pickled


class TakeFolder(Callback):
    """Takes a sweep's folder for this process, and keeps its name, so that its summary is written even when it is
    interrupted.

    (Hydra does not call `on_multirun_end` then.)
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir).absolute()
        if "LOCAL_RANK" in os.environ:  # started by the process that holds the folder, to train beside it
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:  # Hydra would turn any other exception of a callback into a warning
            sys.exit(f"Another process works in '{folder}': wait for it to end, or give another hydra.sweep.dir.")
        folders.append(folder)
        locks.append(lock)


class OtherRun(UsageError):
    """A job's folder holds a run of another configuration; nothing may be written there."""


def check_same(config: DictConfig, folder: Path) -> None:
    """Raises OtherRun when `folder` holds a run that a composed configuration does not describe."""
    path = folder / "config.yaml"
    if not path.exists():
        return
    both = (OmegaConf.to_container(c, resolve=True) for c in (config, OmegaConf.load(path)))
    ours, theirs = (dict(leaves(moved(own))) for own in both)
    if ours.get("trainer.precision") == "auto":  # config.yaml holds what it became
        del ours["trainer.precision"], theirs["trainer.precision"]
    for key in [*theirs, *(key for key in ours if key not in theirs)]:
        if key in FREE or key.split(".")[0] in FREE:
            continue
        there, here = (str(side.get(key, "absent")) for side in (theirs, ours))
        if there != here:
            raise OtherRun(
                f"'{folder}' holds another job ({key} is {there} there, {here} in this command): a sweep goes on in its"
                " folder with its own words only, and so does a run; give another hydra.sweep.dir or hydra.run.dir."
            )


def go_on(config: DictConfig, folder: Path) -> float | None:
    """Changes a composed configuration to do only what an earlier start in `folder` left undone.

    A stage is done when metrics.json holds its seconds. Training goes on from checkpoints/last.ckpt, unless the job
    failed for a reason that stays in it, as a diverged one's does; then the job starts anew. Without a checkpoint the
    stages that need no network, and are done, are left out.

    Returns:
        The monitored metric when nothing is left to do, NaN where there is none; else None.

    Raises:
        OtherRun: the folder holds a run of another configuration.
    """
    if config.ckpt_path is not None:  # stages of a given checkpoint run again, but for what came before its training
        if "fit" in config.stages and (done := done_before_fit(config, folder)):
            config.stages = [stage for stage in config.stages if stage not in done]
        return None
    check_same(config, folder)
    failure, metrics = (read_json(folder / name) for name in ("failure.json", "metrics.json"))
    (folder / "failure.json").unlink(missing_ok=True)
    left = [stage for stage in config.stages if f"seconds/{stage}" not in metrics]
    checkpoints, (monitor, _) = folder / "checkpoints", monitored(config)
    if not (folder / "config.yaml").exists():
        return None
    if not left and not failure and (monitor in metrics or "fit" not in config.stages):
        told = f", {monitor} {metrics[monitor]:.4f}" if monitor in metrics else ""
        log.info("done before%s: %s", told, folder)
        return metrics.get(monitor, math.nan)
    lasting = failure.get("error") == "UsageError"
    if not lasting and readable(checkpoints / "last.ckpt"):
        with open_dict(config):
            config.stages = left or config.stages
            config.ckpt_path = str(checkpoints / ("last.ckpt" if "fit" in config.stages else "best.ckpt"))
        log.info("goes on from %s with %s", config.ckpt_path, ", ".join(config.stages))
        return None
    if not lasting and begun_without_network(config, folder):
        config.stages = [stage for stage in config.stages if stage in left or (left and stage == "report")]
        log.info("goes on with %s", ", ".join(config.stages))
        return None
    log.info("starts anew: %s", failure.get("message", "it was ended before its first checkpoint"))
    for name in REMAINS:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return None


def begun_without_network(config: DictConfig, folder: Path) -> bool:
    """Does the folder hold what stages that need no network left, and nothing else?"""
    metrics, able = read_json(folder / "metrics.json"), set(config.task.get("without_network", []))
    done = {stage for stage in config.stages if f"seconds/{stage}" in metrics}
    return bool(done & able) and done <= able | {"report"}


def done_before_fit(config: DictConfig, folder: Path) -> set[str]:
    """Stages before `fit` that need no network and have left their figures in the folder."""
    before, metrics = config.stages[: list(config.stages).index("fit")], read_json(folder / "metrics.json")
    return {s for s in before if s in config.task.get("without_network", []) and f"seconds/{s}" in metrics}


def holds_stages(config: DictConfig, folder: Path) -> bool:
    """Has a stage that needs no network left its figures?"""
    metrics = read_json(folder / "metrics.json")
    return any(f"seconds/{stage}" in metrics for stage in config.task.get("without_network", []))


def readable(checkpoint: Path) -> bool:
    """Is it there, and whole? A job killed while saving leaves half a file."""
    from reporting.load import read_checkpoint  # torch

    try:
        read_checkpoint(checkpoint)
    except UsageError:
        return False
    return True
