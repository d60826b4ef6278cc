"""A run's folder: where its figures come from, written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import UsageError
from datamodules.files import whole_file
from reporting.report import write_text

PACKAGES = ("torch", "lightning", "hydra-core", "numpy")


def provenance(run_folder: Path) -> dict[str, Any]:
    """Command, commit, machine and versions of this process, in words."""
    return {
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(run_folder),
        "machine": machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def git_commit(run_folder: Path) -> str:
    """The commit of this project's checkout, `+` appended when files other than the run's own differ from it;
    `unknown` without one."""
    root, own = Path(__file__).resolve().parent.parent, run_folder.resolve()
    without_own = ["--", ".", f":(exclude){own}"] if own.is_relative_to(root) else []

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", *without_own)
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Processor, threads used, and GPU."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads{gpu}"


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """config.yaml: a resolved configuration with where it ran; of a run that goes on, its first command stays."""
    path, record = folder / "config.yaml", provenance(folder)
    if path.exists():
        record = {**OmegaConf.load(path).provenance, "went on with": record["command"]}
    config = {**config, "provenance": record}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config)), sort_keys=False))


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """metrics.json: what an earlier stage left there, and these."""
    write_text(
        folder / "metrics.json", json.dumps(read_metrics(folder) | dict(metrics), indent=2, sort_keys=True) + "\n"
    )


def read_metrics(folder: Path) -> dict[str, float]:
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_predictions(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """predictions.npz: one row for each item tested."""
    with whole_file(folder / "predictions.npz") as unfinished:
        np.savez_compressed(unfinished, **arrays)


def read_predictions(folder: Path, name: str = "predictions.npz") -> dict[str, np.ndarray]:
    """The arrays of predictions.npz, or of another stage's file; nothing in the file can run code.

    Raises:
        UsageError: it is damaged, or holds Python objects.
    """
    path = folder / name
    try:
        with np.load(path, allow_pickle=False) as loaded:
            return dict(loaded)
    except (ValueError, OSError, BadZipFile, EOFError, zlib.error, KeyError, AttributeError, RuntimeError) as error:
        raise UsageError(f"'{path}' is damaged, or no file of predictions: test the run anew.") from error


def read_run(folder: Path) -> tuple[DictConfig, dict[str, float]]:
    """config.yaml and metrics.json of a finished run.

    Raises:
        UsageError: one is missing or damaged.
    """
    try:
        config = OmegaConf.load(folder / "config.yaml")
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if not isinstance(metrics, dict) or not {"choices", "provenance"} <= config.keys():
            raise ValueError
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, AttributeError) as error:
        raise UsageError(f"'{folder}' holds no finished run, or a damaged one: give a run's folder.") from error
    return config, metrics
