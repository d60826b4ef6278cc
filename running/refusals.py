"""What cannot work, found once data and network are known; each is a UsageError of one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from reporting.published import text
from running.plateau import LENGTHS, check_span, on_plateau

# What a schedule over the whole training depends on.
SPANNED = [*LENGTHS, "trainer.limit_train_batches", "data.batch_size"]
# Settings of a network that say how it is computed or trained, not what it computes; dropouts too.
HOW = ("engine", "channels_last", "gradient_checkpointing", "initialisation")


def check_devices(trainer: DictConfig) -> None:
    """Raises UsageError when more processes are asked of a CPU than it has cores: each would be a process."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    cores = os.cpu_count() or 1
    if on_cpu and isinstance(trainer.devices, int) and trainer.devices > cores:
        raise UsageError(f"trainer.devices is {trainer.devices}, but this machine has {cores} cores and no GPU in use.")


def check_batches(trainer: DictConfig, batches: dict[str, int]) -> None:
    """Raises UsageError when an epoch ends before its first validation, or a fraction of a split is less than a batch.

    Args:
        trainer: its settings.
        batches: of each split, train, val and test.
    """
    for split, number in batches.items():
        share = trainer[f"limit_{split}_batches"]
        if isinstance(share, float) and 0 < share * number < 1:
            raise UsageError(
                f"trainer.limit_{split}_batches is {share} of {number} batches, less than one: choose more."
            )
    interval, epoch = trainer.val_check_interval, epoch_of(trainer, batches)
    if isinstance(interval, int) and interval > epoch:
        raise UsageError(f"trainer.val_check_interval is {interval} batches, but an epoch has {epoch}: choose fewer.")


def epoch_of(trainer: DictConfig, batches: dict[str, int]) -> int:
    """How many batches an epoch of training has."""
    limit = trainer.limit_train_batches
    return min(batches["train"], limit) if isinstance(limit, int) else int(batches["train"] * limit)


def check_resumable(config: DictConfig, checkpoint: dict[str, Any], batches: dict[str, int]) -> None:
    """Raises UsageError when a run that goes on is given another optimizer, schedule or average of the weights
    than it began with.

    The optimizer's state holds its settings, and a schedule but the constant one spans the whole training; only from
    its plateau a `warmup_stable_decay` goes on over another span, which ends its plateau after what is done.
    """
    before = OmegaConf.create(checkpoint["config"])
    budgets = [OmegaConf.select(each, "budget.minutes") for each in (before, config)]
    if on_plateau(checkpoint) and (None in budgets) != (budgets == [None, None]):
        raise UsageError(
            "A run laid out in epochs or steps goes on from its plateau with more of these, one with a budget of time "
            "with more minutes: the one cannot become the other."
        )
    free = on_plateau(checkpoint)
    keys = [f"{group}.{key}" for group in ("optimizer", "scheduler") for key in before[group]]
    keys += ["choices.optimizer", "choices.scheduler", "average"]
    keys += SPANNED if before.choices.scheduler != "constant" else []
    for key in keys:
        old, new = OmegaConf.select(before, key), OmegaConf.select(config, key)
        if old != new and not (free and key in LENGTHS):
            name = key.removeprefix("choices.")
            also = (
                ", or go on from its checkpoints/plateau.ckpt" if key in LENGTHS and "decay" in config.scheduler else ""
            )
            raise UsageError(
                f"A run that began with {name}={old} cannot go on with {name}={new}: its schedule is laid out "
                f"from the start; leave the word out, or train anew{also}."
            )
    spanning = [key for key in LENGTHS if (key == "budget.minutes") == (config.budget.minutes is not None)]
    if free and any(OmegaConf.select(before, key) != OmegaConf.select(config, key) for key in spanning):
        check_span(config, checkpoint, epoch_of(config.trainer, batches))


def check_processes(checkpoint: dict[str, Any], world: int) -> None:
    """Raises UsageError when a run goes on in another number of processes, each of which has states of its own."""
    if (before := len(checkpoint["random_states"])) != world:
        raise UsageError(
            f"A run that began in {before} processes cannot go on in {world}: give trainer and trainer.devices as they "
            "were, or train anew."
        )


def check_network(config: DictConfig, before: DictConfig, path: Path) -> None:
    """Raises UsageError when a checkpoint's weights are to be used in a network other than theirs.

    Strict loading does not see all of it: of a vision transformer with other heads the weights have the same shapes.
    """
    for key in [key for key in before.model if key in config.model]:
        how = key in HOW or key.endswith("dropout") or key.startswith("_")
        old, new = before.model[key], config.model[key]
        if old != new and not how:
            raise UsageError(
                f"The weights in '{path}' are of another network (model.{key} is {text(old)} there, {text(new)} in this"
                " command): leave out words that change the network."
            )
