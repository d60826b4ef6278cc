"""An average of the weights over training, which is what is validated, kept and tested."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_modules.base import Task

PREFIX = "network."


class WeightAverage(Callback):
    """Exponential moving average of a module's network, running statistics included.

    In validation the network holds the average, between validations the weights being trained. A checkpoint's
    `state_dict` holds the average; `training_weights` holds the others, to go on from.

    Args:
        decay: share of the average kept at each step; less in the first steps, (1 + t) / (10 + t) after t steps.
    """

    def __init__(self, decay: float):
        self.decay, self.steps = decay, 0
        self.other: dict[str, Tensor] = {}  # the weights that are not in the network: the average, while training
        self.shown = False  # is the average in the network?

    def _swap(self, module: L.LightningModule) -> None:
        held = clone(module.network.state_dict())
        module.network.load_state_dict(self.other)
        self.other, self.shown = held, not self.shown

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        held = clone(module.network.state_dict())
        if self.other:  # gone on from a checkpoint: the network was given the average
            module.network.load_state_dict(self.other)
        self.other = held

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, module: Task, *_: Any) -> None:
        if module.batches_done <= self.steps:  # gradients were accumulated, nothing moved
            return
        self.steps = module.batches_done
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        held = module.network.state_dict()
        moving = [name for name, value in held.items() if value.is_floating_point()]
        # All at once: on a GPU a launch or two in place of one a tensor.
        torch._foreach_lerp_([self.other[name] for name in moving], [held[name] for name in moving], share)
        for name in held.keys() - set(moving):
            self.other[name].copy_(held[name])

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.other and not self.shown:
            self._swap(module)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        # Not at validation's end: the checkpoints and pictures made there are of the average.
        if self.shown:
            self._swap(module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.shown:
            self._swap(module)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.other:
            return
        in_network = clone(module.network.state_dict())
        average, training = (in_network, self.other) if self.shown else (self.other, in_network)
        checkpoint["state_dict"].update({PREFIX + name: value for name, value in average.items()})
        checkpoint["training_weights"] = {"steps": self.steps, "weights": dict(training)}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.steps, self.other = checkpoint["training_weights"]["steps"], checkpoint["training_weights"]["weights"]


def clone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}
