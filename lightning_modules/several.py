"""A task whose players each have an optimizer of their own: generators against discriminators, a student and so on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from datamodules.errors import UsageError
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Task


class SeveralOptimizers(Task):
    """A task that steps several optimizers in a batch, in Lightning's manual optimization.

    A subclass says in `players` who they are, in `parameters_of` what each of them trains, and in `play` which steps
    a batch of training comes to, by `step`; `measure` is for validation and test. All else of a run is as with one
    optimizer: a step of its curves, of `trainer.max_steps` and of its schedules is a batch, whatever the number of
    optimizer steps in it, which Lightning's `global_step` counts. Each player's learning rate has the run's schedule.

    A player's step whose loss or gradient is not finite is left out by itself (`nonfinite=skip`): buffers, running
    statistics and image pools among them, are then as they were before that step's forward pass.

    What must survive a checkpoint is a persistent buffer, never a list. No attribute may be named `saved_models` or
    `layer`: Lightning's ModelCheckpoint would put the weights of the one into the other.

    Args:
        network: a plain module that holds every player.
        optimizer, scheduler: as of every task.
        adversary_optimizer, adversary_scheduler: of the players that play against those of `optimizer`.
        clip: longest gradient of each player's step (the norm over all its parameters), cut when it is longer;
            null: never. In place of `trainer.gradient_clip_val`.
        others: of the class that a subclass has beside this one.

    Raises:
        UsageError: clip is not above 0; on loading, a checkpoint is of another number of optimizers.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        adversary_optimizer: MakeOptimizer,
        adversary_scheduler: MakeScheduler,
        clip: float | None = None,
        **others: Any,
    ):
        super().__init__(network, optimizer, scheduler, **others)
        if clip is not None and not clip > 0:
            raise UsageError(f"task.module.clip is {clip}, but it must be a number above 0, or null.")
        self.automatic_optimization = False
        self.make_adversary, self.make_adversary_scheduler = adversary_optimizer, adversary_scheduler
        self.clip = clip
        # Called before the forward pass of each player's step: what looks at single steps puts itself here.
        self.before_step: Callable[[], None] = lambda: None

    @property
    @abstractmethod
    def players(self) -> Mapping[str, str]:
        """Each player's name and the group its optimizer is made from: `optimizer` or `adversary_optimizer`.

        Their order is that of the optimizers in a checkpoint.
        """

    @abstractmethod
    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """What a player's optimizer trains."""

    @abstractmethod
    def play(self, batch: Any) -> Measured:
        """All steps of a batch of training, and what it comes to; its loss is shown, and needs no graph."""

    def step(self, player: str, loss: Callable[[], Tensor]) -> Tensor:
        """A step of one player's optimizer on `loss()`, whose forward pass must lie within it.

        Meanwhile the other players' parameters ask for no gradient: one flows through them, none is kept.

        Returns:
            The loss, without its graph.
        """
        optimizer = self.optimizer_of(player)
        self.player, self.option = player, self.players[player]
        self.before_step()
        with self.toggled_optimizer(optimizer):
            value = loss()
            optimizer.zero_grad()
            self.manual_backward(value)
            optimizer.step()
        return value.detach()

    def optimizer_of(self, player: str) -> LightningOptimizer:
        """As Lightning wraps it: only then are its steps counted, and the hooks called."""
        made = self.optimizers()
        return (made if isinstance(made, list) else [made])[list(self.players).index(player)]

    def training_step(self, batch: Any, number: int) -> dict[str, Tensor]:
        measured = self.play(batch)
        self.count(measured, "train")
        self.show_step(measured.loss.detach())
        for each in self.trainer.lr_scheduler_configs:  # Lightning steps none in manual optimization
            self.lr_scheduler_step(each.scheduler)
        return {"loss": measured.loss.detach()}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here, and not after the backward pass, because in 16-mixed the gradients are scaled until now.
        if self.clip is not None:
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")

    def configure_optimizers(self) -> list[dict[str, Any]]:
        makers = {
            "optimizer": (self.make_optimizer, self.make_scheduler),
            "adversary_optimizer": (self.make_adversary, self.make_adversary_scheduler),
        }
        found = []
        for player, option in self.players.items():
            make, schedule = makers[option]
            made = self.scheduled(make(list(self.parameters_of(player))), schedule)
            made["lr_scheduler"]["name"] = f"lr-{player}"
            found.append(made)
        return found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        kept = len(checkpoint["optimizer_states"])
        if kept != len(self.players):
            raise UsageError(
                f"The checkpoint holds {kept} optimizers, but this run has {len(self.players)} "
                f"({', '.join(self.players)}): leave out words that change who is trained, or train anew."
            )

    # Steps are batches

    @property
    def batches_done(self) -> int:
        # Not `_batches_that_stepped`, which is raised only after the validation that may follow.
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed

    @property
    def batches_planned(self) -> float:
        planned = self.trainer.estimated_stepping_batches
        return planned if self.max_steps == -1 else min(planned, self.max_steps)
