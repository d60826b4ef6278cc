"""A loss or a gradient that is NaN or infinite stops the run, or is left out and counted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.base import Task
from lightning_modules.several import SeveralOptimizers
from running.training.fused import is_fused

log = logging.getLogger(__name__)

UNREAD = 50  # steps whose numbers may lie on the device unread


class Step(NamedTuple):
    """A step that was looked at; `numbers` (2,) on the device are its loss and the norm of its gradient."""

    number: int
    player: str | None
    option: str
    lr: float
    numbers: Tensor


class FiniteSteps(Callback):
    """Looks at every step's loss, and at the norm of its gradient, before the weights change.

    Of a task with several optimizers these are each player's steps, left out one by one. (With precision 16-mixed
    infinite gradients are part of finding the loss's scale: only the loss is looked at.)

    A fused optimizer is told on the device that a step is not finite, and then leaves the weights alone: the numbers
    are read every 50 steps, before a validation and before a checkpoint, so that no step waits for a GPU.

    Args:
        nonfinite: `stop`, or `skip`: the weights and running statistics stay as before the step; the figures of the
            training data show what happened.
        last: the checkpoint to name.

    Raises:
        UsageError: when made: no such word; while training: the loss or gradient is not finite.
    """

    def __init__(self, nonfinite: str, last: Path):
        if nonfinite not in ("stop", "skip"):
            raise UsageError(f"nonfinite is {nonfinite!r}: choose stop or skip.")
        self.nonfinite, self.last, self.skipped = nonfinite, last, 0
        self.loss = torch.zeros(())
        self.buffers: list[Tensor] = []
        self.begun: set[torch.optim.Optimizer] = set()  # those that have made a step that was finite
        self.unread: list[Step] = []

    def state_dict(self) -> dict[str, Any]:
        self._read()  # a checkpoint is about to be written
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["skipped"]

    def on_fit_start(self, trainer: L.Trainer, module: Task) -> None:
        if isinstance(module, SeveralOptimizers):
            module.before_step = lambda: self._keep(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Task, *_: Any) -> None:
        if len(self.unread) >= UNREAD:
            self._read()

    def on_validation_start(self, trainer: L.Trainer, module: Task) -> None:
        self._read()

    def on_train_end(self, trainer: L.Trainer, module: Task) -> None:
        self._read()

    def on_train_batch_start(self, trainer: L.Trainer, module: Task, *_: Any) -> None:
        self._keep(module)

    def _keep(self, module: Task) -> None:
        if self.nonfinite == "skip":
            self.buffers = [buffer.clone() for buffer in module.buffers()]

    def on_before_backward(self, trainer: L.Trainer, module: Task, loss: Tensor) -> None:
        self.loss = loss.detach()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Task, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        numbers = torch.stack([self.loss, norm.to(self.loss)])
        step = Step(module.batches_done + 1, module.player, module.option, optimizer.param_groups[0]["lr"], numbers)
        if self._may_wait(trainer, module, optimizer):
            self._leave_to(optimizer, step, module)
            return
        looked_at = self.loss if trainer.precision == "16-mixed" else numbers
        if not trainer.strategy.reduce_boolean_decision(not looked_at.isfinite().all().item(), all=False):
            self.begun.add(optimizer)
            return
        self._found(step)
        optimizer.zero_grad(set_to_none=True)  # parameters without a gradient are not touched, not even decayed
        for buffer, before in zip(module.buffers(), self.buffers, strict=True):
            buffer.copy_(before)
        module.on_step_skipped()

    def _may_wait(self, trainer: L.Trainer, module: Task, optimizer: torch.optim.Optimizer) -> bool:
        """May a step's numbers be read later?

        Not before an optimizer's first that is finite: fused SGD, told to leave out its first, would keep as momentum
        what lay in memory.
        """
        told = self.nonfinite == "skip" and type(module).on_step_skipped is not Task.on_step_skipped
        alone = trainer.world_size == 1 and trainer.precision != "16-mixed"
        return is_fused(optimizer) and alone and not told and optimizer in self.begun

    def _leave_to(self, optimizer: torch.optim.Optimizer, step: Step, module: Task) -> None:
        bad = ~step.numbers.isfinite().all()
        optimizer.found_inf = bad.float()
        if self.nonfinite == "skip":
            for buffer, before in zip(module.buffers(), self.buffers, strict=True):
                buffer.copy_(torch.where(bad, before, buffer))
        self.unread.append(step)

    def _read(self) -> None:
        """Looks at the numbers of the steps since the last time, all at once."""
        steps, self.unread = self.unread, []
        if steps:
            read = torch.stack([step.numbers for step in steps]).cpu()
            for step, numbers in zip(steps, read, strict=True):
                if not numbers.isfinite().all():
                    self._found(step._replace(numbers=numbers))

    def _found(self, step: Step) -> None:
        """A step that is not finite: raises UsageError, or says and counts that it is left out."""
        loss, norm = step.numbers.tolist()
        what = f"the loss of the {step.player}" if step.player else "the loss"
        said = f"{what} is {loss:.6g} at step {step.number} (learning rate {step.lr:.4g}, gradient norm {norm:.4g})"
        if self.nonfinite == "skip":
            self.skipped += 1
            log.warning("%s: this step is left out", said)
            return
        kept = f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"
        raise UsageError(f"Training diverged: {said}; {kept}. Try a smaller {step.option}.lr, or nonfinite=skip.")
