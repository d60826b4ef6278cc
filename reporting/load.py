"""A run's checkpoint read back: by a stage, or in a notebook."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, spec_from_dict
from reporting.folder import CONF, find_checkpoint
from reporting.targets import check_calls, moved

KINDS = {
    "config": dict, "spec": dict, "state_dict": dict, "metrics": dict, "loader_place": dict, "seconds": float,
    "global_step": int, "epoch": int,
}  # fmt: skip
# Figures' sums that earlier versions kept among the weights.
EARLIER_SUMS = re.compile(
    r"(?!network\.).*\b(train|val|test|carried|reset)_(mean\.(mean_value|weight)|\w+\.(tp|fp|tn|fn))"
)
CONFIG_KEYS = {"choices", "data", "model", "optimizer", "paths", "scheduler", "seed", "stages", "task", "trainer"}


class LoadedRun(NamedTuple):
    """A trained network in evaluation mode, the spec of its data, and the configuration it was trained with."""

    network: nn.Module
    spec: Spec
    config: DictConfig


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
    config = moved(checkpoint["config"])
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
    weights = checkpoint["state_dict"]
    weights = {k: v for k, v in weights.items() if not EARLIER_SUMS.fullmatch(str(k))}
    return checkpoint | {"config": config, "state_dict": weights}


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
