"""Optimizers that change all weights in one kernel (`fused=true`)."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


class LaidOut(Callback):
    """Has what a fused optimizer keeps of each weight lie in memory as the weight does.

    Its kernel goes through both in the order they lie in. In a checkpoint of a machine with another memory format they
    lie otherwise, and it would mix up their elements; on a CPU without a word.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for optimizer in filter(is_fused, trainer.optimizers):
            for weight, state in optimizer.state.items():
                for name, kept in state.items():
                    if torch.is_tensor(kept) and kept.shape == weight.shape and kept.stride() != weight.stride():
                        state[name] = torch.empty_like(weight).copy_(kept)
