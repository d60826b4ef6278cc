"""A run's folder read back, and what conf/ says of its task; without torch, so that commands answer at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import UsageError

REPOSITORY = Path(__file__).resolve().parent.parent
CONF = REPOSITORY / "conf"
STAGES_FILE = "stages.json"  # what an ablation chose, in the sweep's folder


def find_checkpoint(path: str | Path, to_resume: bool = False) -> Path:
    """A checkpoint file; of a run's folder its best one, or its last to go on training from.

    Raises:
        UsageError: there is none.
    """
    path = Path(str(path))
    if path.is_dir():
        path = path / "checkpoints" / ("last.ckpt" if to_resume else "best.ckpt")
    if not path.is_file():
        raise UsageError(f"There is no checkpoint '{path}': give a .ckpt file, or a run's folder, as ckpt_path.")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no file or it was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def read_metrics(folder: Path) -> dict[str, float]:
    """metrics.json; empty when no stage has ended yet."""
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


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


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested dicts; a list is a value."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def task_settings(name: str) -> dict[str, Any]:
    """What conf/ says of a task now (a run's own configuration may be older); empty when this checkout has no such."""
    files = {path.stem: path for path in (CONF / "task").glob("*.yaml")}  # a name from elsewhere may be any text
    return OmegaConf.to_container(OmegaConf.load(files[name]))["task"] if name in files else {}


def task_class(name: str) -> type[Any]:
    """The class of a task that this checkout has: what it adds to pages is asked of it.

    Where a model's file chooses the module (`task_module`), the task's file names the class all of them share.
    """
    settings = task_settings(name)
    return get_class(settings["pages"] if "pages" in settings else settings["module"]["_target_"])


def monitored(config: Mapping[str, Any]) -> tuple[str, str]:
    """The figure that a run is judged by, and whether its lowest (`min`) or highest (`max`) value is best.

    It is the task's `monitor`; of a run of stages that need no network the last one's in the task's `stage_monitors`.
    """
    task, own = config["task"], None
    stages, named = config.get("stages") or ["fit"], task.get("stage_monitors", {})
    if "fit" not in stages and config.get("ckpt_path") is None:
        own = next((named[stage] for stage in reversed(stages) if stage in named), None)
    return tuple(own) if own else (task["monitor"], task.get("mode", "min"))
