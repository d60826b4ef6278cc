"""Callbacks of every run: what goes into its checkpoints, and the lines it prints."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_modules.base import Task
from running.training.going_on import end_training

log = logging.getLogger(__name__)


class Record(Callback):
    """Puts configuration, spec, figures so far, seconds and batches trained into every checkpoint, as plain containers.

    Also the training loader's place, which Lightning saves but does not restore once a module has asked for
    `estimated_stepping_batches`: a run resumed in the middle of an epoch would begin that epoch anew.

    Args:
        config: the composed configuration, interpolations and all.
        spec: `spec_to_dict` of the data's spec.
        seconds_before: seconds trained before this process went on.
    """

    def __init__(self, config: dict[str, Any], spec: dict[str, Any], seconds_before: float = 0.0):
        self.config, self.spec, self.seconds_before = config, spec, seconds_before
        self.started = time.perf_counter()
        self.loader_place: dict[str, Any] | None = None
        self.figures: dict[str, float] = {}  # the checkpoint's that training goes on from, until there are newer ones

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_save_checkpoint(self, trainer: L.Trainer, module: Task, checkpoint: dict[str, Any]) -> None:
        found = {name: value.item() for name, value in trainer.callback_metrics.items() if "_step" not in name}
        figures = self.figures | found
        place = trainer.train_dataloader.state_dict()
        if place["batches_done"] >= trainer.num_training_batches:  # the end of an epoch that a limit cut short
            place = {"batches_done": 0}
        checkpoint.update(config=self.config, spec=self.spec, metrics=figures, seconds=self.seconds, loader_place=place)
        checkpoint["batches_done"] = module.batches_done

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loader_place, self.figures = checkpoint["loader_place"], checkpoint["metrics"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.loader_place is not None:
            trainer.train_dataloader.load_state_dict(self.loader_place)


class ValidateLastStep(Callback):
    """Ends training by `should_stop` at `max_steps`, so that Lightning validates, and saves, after the last step too.

    Without it a run that ends between two validations loses the steps since the former. Of a task with several
    optimizers Lightning itself would count the steps of all of them: there this alone ends it.

    Args:
        max_steps: -1: no limit.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps

    def setup(self, trainer: L.Trainer, module: Task, stage: str) -> None:
        module.max_steps = self.max_steps  # before the schedules are made

    def on_train_start(self, trainer: L.Trainer, module: Task) -> None:
        if module.batches_done == self.max_steps and not trainer.should_stop:  # gone on from its end
            end_training(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, module: Task, *_: Any) -> None:
        if module.batches_done == self.max_steps:
            validate_and_stop(trainer)


def validate_and_stop(trainer: L.Trainer) -> None:
    """After the step just made, also in an epoch that `check_val_every_n_epoch` leaves out."""
    trainer.should_stop = True
    if trainer.check_val_every_n_epoch is not None:
        trainer.check_val_every_n_epoch = 1


class ProgressLines(Callback):
    """A log line every half minute and at each validation, so that a run without a terminal shows its progress too."""

    SECONDS = 30

    def on_train_start(self, trainer: L.Trainer, module: Task) -> None:
        self.started = self.last = time.perf_counter()
        self.first_part = module.part_done

    def on_train_batch_end(self, trainer: L.Trainer, module: Task, outputs: Any, batch: Any, number: int) -> None:
        now = time.perf_counter()
        if now - self.last < self.SECONDS:
            return
        self.last = now
        left = (now - self.started) / max(1e-9, module.part_done - self.first_part) * (1 - module.part_done)
        step = f"step {module.batches_done}"
        if math.isfinite(module.batches_planned):
            step += f" of {module.batches_planned:.0f}"
        log.info("%s, loss %.4f, %.0f min left", step, outputs["loss"], left / 60)

    def on_validation_end(self, trainer: L.Trainer, module: Task) -> None:
        names = [name for name in trainer.callback_metrics if name.split("/")[0] in ("train", "val")]
        shown = "  ".join(f"{name} {trainer.callback_metrics[name]:.4f}" for name in names if "_step" not in name)
        log.info("step %d, epoch %d:  %s", module.batches_done, trainer.current_epoch + 1, shown)
