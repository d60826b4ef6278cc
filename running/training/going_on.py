"""What a checkpoint of Lightning's lacks for a run to go on as if it had not been ended, and how it ends gently."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_modules.gathering import gathered
from running.stopped import stop


class GoOn(Callback):
    """Keeps every process's random states in the checkpoint, and ends a training that had stopped early.

    Lightning restores neither: dropout would draw other masks, and a run killed after its patience was at an end would
    train on. Events for TensorBoard reach the disk before the checkpoint that follows them.

    Args:
        patience: of the run as it goes on, which may be another than the checkpoint's.
    """

    def __init__(self, patience: int | None = None):
        self.patience = patience
        self.restored: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random_states"] = gathered(random_states())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.restored = checkpoint["random_states"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.restored is None:
            if trainer.global_rank:  # processes that see different items should not drop the same features of them
                torch.manual_seed(torch.initial_seed() + trainer.global_rank)
            return
        restore_random_states(self.restored[trainer.global_rank])
        for callback in trainer.callbacks:
            if isinstance(callback, EarlyStopping):
                callback.patience = self.patience
                if callback.wait_count >= max(1, self.patience):  # with patience 0, as with 1, one without improvement
                    end_training(trainer)


def end_training(trainer: L.Trainer) -> None:
    """Ends a training just restored; its last step and epoch count, as they did after the checkpoint was written."""
    loop = trainer.fit_loop
    loop.epoch_loop._batches_that_stepped = trainer.lightning_module.batches_done
    loop.epoch_progress.increment_processed()
    loop.epoch_progress.increment_completed()
    trainer.should_stop = True


def random_states() -> dict[str, Any]:
    """Of every generator that a library might draw from, in plain containers."""
    name, keys, place, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, keys.tolist(), place, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


class StopGently(Callback):
    """SIGTERM or Ctrl-C ends training after the step, or the validation, under way, with a checkpoint to go on from.

    A second one ends it at once. (Lightning's own handler ends a run with status 0 and no checkpoint.)

    Args:
        last: the checkpoint.
    """

    def __init__(self, last: Path):
        self.last, self.number = last, 0
        self.stepped_at = self.validated_at = -1

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.stepped_at = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            # In place of Lightning's; at the end of training it puts back what was there before.
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            stop(number, frame)
        self.number = number

    def _end_if_asked(self, trainer: L.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(bool(self.number), all=False):
            trainer._signal_connector.received_sigterm = True  # Lightning then raises where loops can go on from

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > self.stepped_at:  # else gradients are being accumulated, which no checkpoint holds
            self.stepped_at = trainer.global_step
            # A validation that is due now is made first: a run that goes on would not make it up.
            if not trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
                self._end_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validated_at = trainer.global_step  # the checkpoint of now is about to be written, or has been
        self._end_if_asked(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and self.validated_at != trainer.global_step:
            trainer.save_checkpoint(self.last, weights_only=False)
