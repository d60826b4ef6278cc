"""Learning-rate schedules with one signature, (optimizer, total_steps, …): a task need not know which it was given."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The optimizer's own learning rate, throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def one_cycle(optimizer: Optimizer, total_steps: int, max_lr: float, pct_start: float) -> OneCycleLR:
    """Up to `max_lr` over the first `pct_start` of the steps, then down by a cosine.

    A group of parameters with a rate of its own has its multiple of `max_lr`. Momentum stays as the optimizer has it:
    torch's default would cycle it, and so turn momentum on in an optimizer that was given none.
    """
    usual = optimizer.defaults["lr"]
    rates = [max_lr * group["lr"] / usual if usual else max_lr for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=total_steps, pct_start=pct_start, cycle_momentum=False)


def warmup_linear(optimizer: Optimizer, total_steps: int, warmup: float, first: float, last: float) -> LambdaLR:
    """From `first` times each group's own learning rate up to it over the first `warmup` of the steps, then down to
    `last` times it, both in a straight line.

    Raises:
        ValueError: `warmup` is not a share of the steps.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"scheduler.warmup is {warmup}, but it must be from 0 up to, not including, 1")
    peak = warmup * total_steps

    def factor(step: int) -> float:
        if step < peak:
            return first + (1 - first) * step / peak
        return 1 + (last - 1) * (step - peak) / (total_steps - peak)

    return LambdaLR(optimizer, factor)
