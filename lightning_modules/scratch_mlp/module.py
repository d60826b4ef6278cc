"""The task: gradient descent by hand, on every image, on batches, or on all images at once."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from lightning_modules.base import MakeOptimizer, MakeScheduler, Task
from lightning_modules.classification import Classification
from lightning_modules.classification.module import Batch
from lightning_modules.scratch_mlp.network import ScratchMLP
from lightning_modules.scratch_mlp.report import report_sections
from lightning_modules.scratch_mlp.updates import descend, trace_updates
from reporting.report import Section

DESCENTS = ("stochastic", "mini_batch", "batch")


class ScratchTraining(Classification):
    """Classification, its figures and predictions, with Lightning's manual optimization and no autograd.

    Every update is: forward pass, backward pass, both of the network's own writing; the gradients are put where the
    optimizer looks for them; the optimizer steps. `descent` says on what:

    - `batch`: all training images, one update an epoch; the loader then hands over the whole split as one batch.
    - `mini_batch`: `data.batch_size` images.
    - `stochastic`: one image. A round of Lightning's loop costs several such updates, so Lightning hands over
      `data.batch_size` images and `training_step` walks through them, one update each; only the last goes through
      Lightning's own optimizer, which counts it. Epochs stay epochs, the order is the loader's, and the weights are
      those of batches of one: three epochs of the digits, 3,879 updates, took 11 s so and 61 s with a round for each,
      all figures alike (one busy core of an AMD EPYC). A step of the curves is such a walk; `train/updates` counts all.

    The schedule is stepped after every batch that Lightning hands over. Losses are without the L2 penalty.

    Args:
        network: a `ScratchMLP`.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule.
        descent: `stochastic`, `mini_batch` or `batch`.
        l2: strength of the penalty l2/2 · Σ‖W‖².

    Raises:
        UsageError: there is no such descent, or l2 is negative.
    """

    def __init__(
        self,
        network: ScratchMLP,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        descent: str = "mini_batch",
        l2: float = 0.0,
    ):
        super().__init__(network, optimizer, scheduler)
        if descent not in DESCENTS:
            near = did_you_mean(str(descent), DESCENTS)
            raise UsageError(f"task.module.descent is {descent}{near}: choose one of {', '.join(DESCENTS)}.")
        if l2 < 0:
            raise UsageError(f"task.module.l2 is {l2}, but it must be 0 or more.")
        self.automatic_optimization = False
        self.descent, self.l2 = descent, l2
        self.register_buffer("updates", torch.tensor(0))  # in the checkpoint, so that a resumed run counts on

    def configure_callbacks(self) -> list[L.Callback]:
        """No callbacks: Lightning's first hook, before checks of its own, refuses what the hand-written passes lack."""
        fits = self.trainer.state.fn == "fit"
        if fits and self.trainer.world_size > 1:
            raise UsageError("task=scratch_mlp trains in one process: leave trainer.devices=1.")
        if fits and self.trainer.gradient_clip_val is not None:
            raise UsageError("task=scratch_mlp does not clip gradients: leave trainer.gradient_clip_val=null.")
        if fits and self.trainer.precision not in ("32-true", "64-true"):
            raise UsageError(
                f"trainer.precision is {self.trainer.precision}, but the hand-written passes mix no precisions: choose "
                "32-true or 64-true."
            )
        return []

    def setup(self, stage: str) -> None:
        """For `batch`, makes the loader's batch the whole training split."""
        if stage == "fit" and self.descent == "batch":
            self.trainer.datamodule.batch_size = len(self.trainer.datamodule.splits["train"].images)

    def configure_optimizers(self) -> dict[str, Any]:
        return Task.configure_optimizers(self)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        size = 1 if self.descent == "stochastic" else len(batch[0])
        pieces = list(zip(batch[0].split(size), batch[1].split(size), strict=True))
        counted = self.optimizers()
        optimizers = [counted.optimizer] * (len(pieces) - 1) + [counted]
        walk = zip(pieces, optimizers, strict=True)
        logits = torch.cat([descend(self.network, *piece, own, self.l2) for piece, own in walk])
        self.lr_scheduler_step(self.lr_schedulers())
        self.updates += len(pieces)
        self._update(logits, batch[1], "train")
        loss = F.cross_entropy(logits, batch[1])
        self.log("train/loss_step", loss, prog_bar=True)
        return loss

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("train/updates", self.updates.float())

    def stage_updates(self, run: Any) -> None:
        """The first updates from the same start by each descent, kept in updates.json: see `updates.py`."""
        trace_updates(self, run)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self.network, run)
