"""Learning-rate schedules with one signature, (optimizer, total_steps, …): a task need not know which it was given."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The optimizer's own learning rate, throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def one_cycle(optimizer: Optimizer, total_steps: int, max_lr: float, pct_start: float) -> OneCycleLR:
    """Up to `max_lr` over the first `pct_start` of the steps, then down by a cosine.

    Momentum stays as the optimizer has it: torch's default would cycle it, and so turn momentum on in an
    optimizer that was given none.
    """
    return OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, cycle_momentum=False)
