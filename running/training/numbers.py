"""A loss or a gradient that is NaN or infinite stops the run, or is left out and counted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.base import Task
from lightning_modules.several import SeveralOptimizers

log = logging.getLogger(__name__)


class FiniteSteps(Callback):
    """Looks at every step's loss, and at the norm of its gradient, before the weights change.

    Of a task with several optimizers these are each player's steps, left out one by one. (With precision 16-mixed
    infinite gradients are part of finding the loss's scale: only the loss is looked at.)

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

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["skipped"]

    def on_fit_start(self, trainer: L.Trainer, module: Task) -> None:
        if isinstance(module, SeveralOptimizers):
            module.before_step = lambda: self._keep(module)

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
        looked_at = self.loss if trainer.precision == "16-mixed" else torch.stack([self.loss, norm.to(self.loss)])
        if not trainer.strategy.reduce_boolean_decision(not looked_at.isfinite().all().item(), all=False):
            return
        step, lr = module.batches_done + 1, optimizer.param_groups[0]["lr"]
        loss = f"the loss of the {module.player}" if module.player else "the loss"
        said = f"{loss} is {self.loss.item():.6g} at step {step} (learning rate {lr:.4g}, gradient norm {norm:.4g})"
        if self.nonfinite == "skip":
            self.skipped += 1
            log.warning("%s: this step is left out", said)
            optimizer.zero_grad(set_to_none=True)  # parameters without a gradient are not touched, not even decayed
            for buffer, before in zip(module.buffers(), self.buffers, strict=True):
                buffer.copy_(before)
            module.on_step_skipped()
            return
        kept = f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"
        raise UsageError(f"Training diverged: {said}; {kept}. Try a smaller {module.option}.lr, or nonfinite=skip.")
