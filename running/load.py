"""Checkpoints written whole, and read back: by a stage, or in a notebook."""

from __future__ import annotations

import io
import pickle
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.spec import Spec, spec_from_dict
from running.check import CONF, find_checkpoint


class LoadedRun(NamedTuple):
    """A trained network in evaluation mode, the spec of its data, and the configuration it was trained with."""

    network: nn.Module
    spec: Spec
    config: DictConfig


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints under their final names are whole.

    (Lightning writes into the system's temporary folder and moves: between two disks that is a copy, which a full disk
    or a kill cuts short after the earlier checkpoint is gone.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project, on the CPU; nothing in the file can run code.

    Raises:
        UsageError: the file is no such checkpoint, or is damaged.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, BadZipFile, EOFError, OSError) as error:
        raise UsageError(f"'{path}' cannot be read as a checkpoint: it is damaged, or something else.") from error
    if not isinstance(checkpoint, dict) or not {"config", "spec", "state_dict"} <= checkpoint.keys():
        raise UsageError(f"'{path}' is no checkpoint of this project: it holds no config and spec.")
    check_targets(checkpoint["config"], path)
    return checkpoint


def check_targets(config: Any, path: Path) -> None:
    """Raises UsageError when a checkpoint's configuration names code that no file of conf/ names."""
    if foreign := sorted(set(targets_of(config)) - known_targets()):
        raise UsageError(f"'{path}' asks to run {foreign[0]}, which no configuration of this project names: refused.")


@cache
def known_targets() -> frozenset[str]:
    """Every `_target_` in conf/."""
    files = (OmegaConf.to_container(OmegaConf.load(file)) for file in CONF.rglob("*.yaml"))
    return frozenset(target for file in files for target in targets_of(file))


def targets_of(node: Any) -> list[str]:
    """Every `_target_` in nested containers."""
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets_of(value)]
    if isinstance(node, list):
        return [target for value in node for target in targets_of(value)]
    return []


def load_run(folder_or_checkpoint: str | Path) -> LoadedRun:
    """The network of a run: of a folder its best checkpoint.

    Raises:
        UsageError: there is no checkpoint, or it is damaged.
    """
    checkpoint = read_checkpoint(find_checkpoint(folder_or_checkpoint))
    config, spec = OmegaConf.create(checkpoint["config"]), spec_from_dict(checkpoint["spec"])
    network = instantiate(config.model, spec=spec)
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    network.load_state_dict(weights)
    return LoadedRun(network.eval(), spec, config)
