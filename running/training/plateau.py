"""A schedule's plateau: its last state is kept, and with more time a run goes on from there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig

from datamodules.errors import UsageError
from lightning_modules.schedules import WarmupStableDecay, level_until
from running.training.checkpoints import batches_done

# What a run that goes on from its plateau may be given more of.
LENGTHS = ("trainer.max_epochs", "trainer.max_steps", "budget.minutes")


class Plateau(Checkpoint):
    """Keeps the state in which a `WarmupStableDecay` ends its plateau, before the first step of its decay.

    Where a validation is due then that comes first, as in every checkpoint to go on from; its `last.ckpt` comes after,
    so that a run that goes on from it has its plateau's state.

    Args:
        path: the checkpoint.
    """

    def __init__(self, path: Path):
        self.path, self.stepped_at, self.due = path, -1, False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.stepped_at = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.stepped_at:  # gradients are being accumulated, which no checkpoint holds
            return
        self.stepped_at = trainer.global_step
        self.due = any(scheduler.last_epoch == scheduler.plateau_end for scheduler in stable(trainer))
        if not trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if self.due:
            self.due = False
            trainer.save_checkpoint(self.path, weights_only=False)


def stable(trainer: L.Trainer) -> list[WarmupStableDecay]:
    """The schedules of a training that have a plateau."""
    found = [config.scheduler for config in trainer.lr_scheduler_configs]
    return [scheduler for scheduler in found if isinstance(scheduler, WarmupStableDecay)]


def on_plateau(checkpoint: dict[str, Any]) -> bool:
    """Is a checkpoint of a state between the warm-up and the first step of the decay?"""
    states = [state for state in checkpoint["lr_schedulers"] if "plateau_end" in state]
    return bool(states) and all(state["warm"] <= state["last_epoch"] <= state["plateau_end"] for state in states)


def check_span(config: DictConfig, checkpoint: dict[str, Any], batches: int) -> None:
    """Raises UsageError when the decay of a run that goes on from its plateau would begin before what is done.

    Args:
        config: of the run as it goes on.
        checkpoint: of its plateau.
        batches: of an epoch.
    """
    level = 1 - config.scheduler.decay
    if (minutes := config.budget.minutes) is not None:
        done, until, unit = checkpoint["seconds"] / 60, minutes * level, "minutes"
        given, least = f"budget.minutes={minutes}", f"{math.ceil(10 * done / level) / 10:g}"
    else:
        total = steps_of(config.trainer, batches)
        done, until, unit = batches_done(checkpoint), level_until(total, config.scheduler.decay), "steps"
        given, least = f"trainer.max_epochs and max_steps come to {total} steps, which", str(math.ceil(done / level))
    if done > until:
        raise UsageError(
            f"{given} is too short: {done:.4g} {unit} are done before the decay, which would then begin after "
            f"{until:.4g}; give {least} {unit} or more."
        )


def steps_of(trainer: DictConfig, batches: int) -> int:
    """A training's, by its settings and an epoch's batches, as Lightning counts them."""
    steps = math.ceil(batches / trainer.get("accumulate_grad_batches", 1)) * trainer.max_epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
