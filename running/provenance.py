"""Where a run's figures come from, and its configuration and figures written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from reporting.folder import REPOSITORY, read_metrics
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
    """The commit of this project's checkout, `+` appended when files other than the run's own, and kept results, differ
    from it; `unknown` without one."""
    root, own = REPOSITORY, run_folder.resolve()
    without_own = ["--", ".", ":(exclude)results", ":(exclude)RESULTS.md"]
    without_own += [f":(exclude){own}"] if own.is_relative_to(root) else []

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
    """config.yaml: a resolved configuration with where it ran; of a run that goes on, its first command and its stages
    stay."""
    path, record, stages = folder / "config.yaml", provenance(folder), list(config["stages"])
    if path.exists():
        before = OmegaConf.load(path)
        record = {**before.provenance, "went on with": record["command"]}
        stages = list(dict.fromkeys([*before.stages, *stages]))
    config = {**config, "stages": stages, "provenance": record}
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(config), sort_keys=False))


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """metrics.json: what an earlier stage left there, and these."""
    write_text(
        folder / "metrics.json", json.dumps(read_metrics(folder) | dict(metrics), indent=2, sort_keys=True) + "\n"
    )
