"""What cannot work, found once data and network are known; each is a UsageError of one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from lightning_modules.base import Task
from lightning_modules.several import SeveralOptimizers
from reporting.published import text
from running.training.plateau import LENGTHS, check_span, on_plateau

# What a schedule over the whole training depends on.
SPANNED = [*LENGTHS, "trainer.limit_train_batches", "data.batch_size"]
DEFAULTS = {"fused": False}  # of settings that older checkpoints have not
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # those with a kernel that can leave a step out
# Settings of a network that say how it is computed or trained, not what it computes; dropouts too.
HOW = ("engine", "channels_last", "gradient_checkpointing", "initialisation")


def check_devices(trainer: DictConfig) -> None:
    """Raises UsageError when more processes are asked of a CPU than it has cores: each would be a process."""
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    cores = os.cpu_count() or 1
    if on_cpu and isinstance(trainer.devices, int) and trainer.devices > cores:
        raise UsageError(f"trainer.devices is {trainer.devices}, but this machine has {cores} cores and no GPU in use.")


def check_optimizers(config: DictConfig) -> None:
    """Raises UsageError when a task has not the optimizers that its configuration gives, or several of them are to be
    trained as only one can be."""
    given, several = config.get("adversary_optimizer") is not None, has_several(config)
    who, trainer = f"model={config.choices.model} of task={config.choices.task}", config.trainer
    if given and not several:
        raise UsageError(f"{who} is trained by one optimizer: leave out adversary_optimizer.")
    if several and not given:
        raise UsageError(f"{who} is trained by several optimizers: give adversary_optimizer=adam, or another.")
    if not several or "fit" not in config.stages:
        return
    if trainer.gradient_clip_val is not None:
        raise UsageError(
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, but {who} is trained by several optimizers: "
            f"give task.module.clip={trainer.gradient_clip_val} in its place."
        )
    if trainer.get("accumulate_grad_batches", 1) != 1:
        raise UsageError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but {who} is trained by several "
            "optimizers, which step in every batch: leave it out, and choose data.batch_size."
        )
    one = len(trainer.devices) == 1 if OmegaConf.is_list(trainer.devices) else trainer.devices == 1
    if not one or trainer.strategy != "auto":
        raise UsageError(f"{who} is trained by several optimizers, in one process: leave trainer.devices=1.")
    if trainer.precision == "16-mixed":
        groups = ("optimizer", "adversary_optimizer")
        if not torch.cuda.is_available() or trainer.accelerator == "cpu":
            raise UsageError("trainer.precision=16-mixed needs a GPU: choose bf16-mixed or 32-true on a CPU.")
        if config.task.module.get("clip") is not None and any(config[group].get("fused") for group in groups):
            raise UsageError("A fused optimizer in 16-mixed cannot clip: leave out fused=true, or task.module.clip.")


def check_fused(config: DictConfig, module: Task) -> None:
    """Raises UsageError when a run's weights cannot be changed in one kernel, as it asks."""
    # Gradients that a task puts there itself need not lie in memory as the weights do.
    if not module.automatic_optimization:
        raise UsageError(f"fused=true is not for task={config.choices.task}, which steps by itself: leave it out.")
    if get_class(config.optimizer._target_) not in FUSED:
        raise UsageError(
            f"fused=true is for adam, adamw and sgd, and optimizer={config.choices.optimizer} is none of them: choose "
            "one, or leave fused=false."
        )
    if config.trainer.precision == "16-mixed":
        raise UsageError("fused=true is not for trainer.precision=16-mixed: choose bf16-mixed or 32-true.")


def has_several(config: DictConfig) -> bool:
    """Is its task one whose players each have an optimizer?"""
    return issubclass(get_class(config.task.module._target_), SeveralOptimizers)


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
    groups = ("optimizer", "adversary_optimizer", "scheduler")
    keys = [f"{group}.{key}" for group in groups for key in before.get(group) or []]
    keys += [*(f"choices.{group}" for group in groups), "average", "fused"]
    keys += SPANNED if before.choices.scheduler != "constant" else []
    for key in keys:
        old, new = (OmegaConf.select(each, key, default=DEFAULTS.get(key)) for each in (before, config))
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
