"""Minutes in place of epochs: training and its schedule end together when they are spent."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lightning_modules.base import TICKS, Task
from running.training.callbacks import Record, validate_and_stop
from running.training.going_on import end_training
from running.training.plateau import stable


class Budget(Callback):
    """Ends training after so many minutes, and tells the module before each step how much of them is spent.

    They are wall-clock minutes of training and its validations, over all sittings of a run that goes on. A validation
    follows the last step, on top; one in which the time runs out is the last. What takes the schedule along is
    `Task.lr_scheduler_step`. A clock decides the number of steps: two runs of one command differ.

    Args:
        minutes: of training.
        record: counts its seconds.
    """

    def __init__(self, minutes: float, record: Record):
        self.seconds, self.record = 60 * minutes, record

    def _spent(self, trainer: L.Trainer) -> float:
        """The part spent, at most 1, by the clock of the first process."""
        return trainer.strategy.broadcast(min(1.0, self.record.seconds / self.seconds))

    def setup(self, trainer: L.Trainer, module: Task, stage: str) -> None:
        if stage == "fit":  # before the schedule is made
            module.spent = 0.0

    def on_train_start(self, trainer: L.Trainer, module: Task) -> None:
        module.spent = self._spent(trainer)
        for scheduler in stable(trainer):
            if (place := int(module.spent * TICKS)) < scheduler.last_epoch:  # gone on with more minutes
                scheduler.rewind(place)
        if module.spent == 1 and trainer.global_step and not trainer.should_stop:
            end_training(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, module: Task, *_: Any) -> None:
        module.spent = self._spent(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._spent(trainer) == 1:
            validate_and_stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: Task) -> None:
        if self._spent(trainer) == 1:
            trainer.should_stop = True
