"""The labeller f_S of CyCADA: the network for digits, trained on the source before everything else."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from datamodules.errors import UsageError
from lightning_modules.adaptation.bounds import cached_weights
from lightning_modules.adaptation.network import SOURCE, SourceOnly
from lightning_modules.adaptation.predicting import predicted
from reporting.load import load_run

log = logging.getLogger(__name__)


def train_labeller(labeller: SourceOnly, run: Any, steps: int) -> None:
    """Gives it the weights of `source_ckpt`, or trains it for so many steps with the run's optimizer and schedule.

    Trained weights are kept in the cache, by all that they depend on.

    Raises:
        UsageError: the checkpoint's network, or its data's spec, is another.
    """
    if (path := run.config.get("source_ckpt")) is not None:
        labeller.load_state_dict(of_checkpoint(labeller, path))
    else:
        weights = cached_weights("source", SourceOnly, labeller, run, steps)
        labeller.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    images, labels = run.datamodule.splits["source_val"]
    right = (predicted(labeller, images, SOURCE, run.module.device) == labels).mean()
    log.info("the labeller has %.2f%% of the source's validation images right", 100 * right)


def of_checkpoint(labeller: SourceOnly, path: str) -> dict[str, torch.Tensor]:
    """The weights of another run's network on the source."""
    network, spec, _ = load_run(path)
    if spec != labeller.spec:
        raise UsageError(f"source_ckpt='{path}' was trained on {spec}, but this data is {labeller.spec}: give another.")
    # Of this kind alone: one that was trained on the target's labels would hand them on.
    if not isinstance(network, SourceOnly) or network.settings["norm"] != labeller.settings["norm"]:
        raise UsageError(
            f"source_ckpt='{path}' was not trained on the source alone with model.norm={labeller.settings['norm']}: "
            "give a run of task=adaptation model=source_only."
        )
    return network.state_dict()
