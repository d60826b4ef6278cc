"""Checkpoints written whole, and read back: by a stage, or in a notebook."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from hydra.utils import instantiate
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.spec import Spec, spec_from_dict
from running.check import CONF, find_checkpoint
from running.targets import check_calls

KINDS = {
    "config": dict, "spec": dict, "state_dict": dict, "metrics": dict, "loader_place": dict, "seconds": float,
    "global_step": int, "epoch": int,
}  # fmt: skip
CONFIG_KEYS = {"choices", "data", "model", "optimizer", "paths", "scheduler", "seed", "stages", "task", "trainer"}


class LoadedRun(NamedTuple):
    """A trained network in evaluation mode, the spec of its data, and the configuration it was trained with."""

    network: nn.Module
    spec: Spec
    config: DictConfig


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints under their final names are whole, and a run's folder can be moved.

    (Lightning writes into the system's temporary folder and moves: between two disks that is a copy, which a full disk
    or a kill cuts short after the earlier checkpoint is gone.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with whole_file(Path(path)) as unfinished:
            unfinished.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return moved(super().load_checkpoint(path, *args, **kwargs), Path(path).resolve().parent)


def moved(checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A checkpoint whose callbacks know the folder it lies in (else Lightning forgets a moved run's best score).

    A best checkpoint that did not come along is forgotten, and its score with it.
    """
    found = {}
    for name, state in checkpoint.get("callbacks", {}).items():
        before = state.get("dirpath")
        if before and Path(elsewhere(state["best_model_path"], before, str(folder))).is_file():
            state = {key: elsewhere(value, before, str(folder)) for key, value in state.items()}
            state["best_k_models"] = {elsewhere(k, before, str(folder)): v for k, v in state["best_k_models"].items()}
        found[name] = state
    return checkpoint | {"callbacks": found}


def elsewhere(value: Any, before: str, after: str) -> Any:
    """A path in the folder `before` as one in `after`; anything else as it is."""
    return after + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this project, on the CPU; nothing in the file can run code.

    Raises:
        UsageError: the file is no such checkpoint, or is damaged.
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise BadZipFile(damaged)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # a damaged file makes its parser raise almost anything
        raise UsageError(
            f"'{path}' cannot be read as a checkpoint: it is damaged or no checkpoint ({reason(error)}); give another."
        ) from error
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(k), kind) for k, kind in KINDS.items()):
        raise UsageError(f"'{path}' is no checkpoint of this project: it holds no config and spec.")
    config = checkpoint["config"]
    if not config.keys() >= CONFIG_KEYS or not all(isinstance(config[key], dict) for key in ("choices", "paths")):
        raise UsageError(f"'{path}' is no checkpoint of this project: its config is not one.")
    check_calls(config, f"'{path}'")
    for group in ("task", "model", "data"):  # they become words of a command
        choice = str(config["choices"].get(group))
        if not re.fullmatch(r"\w+", choice) or not (CONF / group / f"{choice}.yaml").is_file():
            raise UsageError(f"'{path}' was trained with {group}={choice}, which this checkout does not have.")
    try:
        spec_from_dict(checkpoint["spec"])
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"'{path}' is no checkpoint of this project: its spec is not one.") from error
    return checkpoint


def reason(error: Exception) -> str:
    """What torch's refusal of a pickled object comes to, or the error's name."""
    if isinstance(error, pickle.UnpicklingError) and (asked := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return f"it asks for {asked[1]}, which is code"
    return type(error).__name__


def load_weights(module: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Raises UsageError when a checkpoint's weights are of another network."""
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip().rstrip(".") for line in str(error).splitlines()]
        raise UsageError(
            f"The weights in '{path}' are of another network ({lines[min(1, len(lines) - 1)]}): leave out words that "
            "change the network."
        ) from error


def load_run(folder_or_checkpoint: str | Path) -> LoadedRun:
    """The network of a run: of a folder its best checkpoint.

    Raises:
        UsageError: there is no checkpoint, or it is damaged.
    """
    path = find_checkpoint(folder_or_checkpoint)
    checkpoint = read_checkpoint(path)
    config, spec = OmegaConf.create(checkpoint["config"]), spec_from_dict(checkpoint["spec"])
    network = instantiate(config.model, spec=spec)
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    load_weights(network, weights, path)
    return LoadedRun(network.eval(), spec, config)
