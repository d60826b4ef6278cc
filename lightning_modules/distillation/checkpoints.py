"""A network kept as a checkpoint of task=classification, which then tests, attacks and loads it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.files import whole_file
from datamodules.spec import ImageSpec, spec_to_dict
from reporting.folder import task_settings

OWN = ("teacher", "attack")  # top-level keys that only this task has; which the other task brings itself
NONE = ("experiment", "sweep", "debug", "adversary_optimizer")


def write_classifier(
    path: Path,
    network: nn.Module,
    spec: ImageSpec,
    config: DictConfig,
    choice: str,
    model: Mapping[str, Any],
    metrics: Mapping[str, float],
    steps: int,
) -> Path:
    """Writes a classifier as a checkpoint of weights alone; returns its path.

    Args:
        network: with its weights.
        spec: of its images.
        config: of the run that made it.
        choice: model=… of task=classification.
        model: that model's settings.
        metrics: figures of training and validation, by their full names.
        steps: that trained it.
    """
    own = OmegaConf.to_container(config)
    kept = {key: value for key, value in own.items() if key not in OWN}
    choices = {name: value for name, value in own["choices"].items() if name not in OWN}
    kept |= dict.fromkeys(NONE)
    kept |= {
        "task": task_settings("classification"),
        "model": dict(model),
        "choices": choices | {"task": "classification", "model": choice} | dict.fromkeys(NONE),
        "stages": ["test", "report"],
        "ckpt_path": None,
        "published": [],
        "checkpoint": "best",
    }
    checkpoint = {
        "config": kept,
        "spec": spec_to_dict(spec),
        "state_dict": {f"network.{name}": value.cpu() for name, value in network.state_dict().items()},
        "metrics": dict(metrics),
        "loader_place": {"batches_done": 0},
        "seconds": 0.0,
        "global_step": steps,
        "epoch": 0,
    }
    content = io.BytesIO()
    torch.save(checkpoint, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())
    return path
