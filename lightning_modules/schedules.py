"""Learning-rate schedules with one signature, (optimizer, total_steps, …): a task need not know which it was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The optimizer's own learning rate, throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def exponential(optimizer: Optimizer, total_steps: int, rate: float, last: float) -> LambdaLR:
    """(lr − last)·rate^step + last: from the optimizer's own learning rate towards `last`, however long it goes on."""

    def factor(step: int) -> float:
        usual = optimizer.defaults["lr"]
        return ((usual - last) * rate**step + last) / usual if usual else 1.0

    return LambdaLR(optimizer, factor)


def one_cycle(optimizer: Optimizer, total_steps: int, max_lr: float, pct_start: float) -> OneCycleLR:
    """Up to `max_lr` over the first `pct_start` of the steps, then down by a cosine.

    A group of parameters with a rate of its own has its multiple of `max_lr`. Momentum stays as the optimizer has it:
    torch's default would cycle it, and so turn momentum on in an optimizer that was given none.
    """
    usual = optimizer.defaults["lr"]
    rates = [max_lr * group["lr"] / usual if usual else max_lr for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=total_steps, pct_start=pct_start, cycle_momentum=False)


def milestones(optimizer: Optimizer, total_steps: int, at: Sequence[float], factor: float) -> LambdaLR:
    """Each group's own learning rate, times `factor` after each of the shares `at` of the steps.

    Raises:
        ValueError: the milestones are not growing shares of the steps.
    """
    if list(at) != sorted(at) or not all(0 < share < 1 for share in at):
        raise ValueError(
            f"scheduler.at is {list(at)}, but it must be growing shares between 0 and 1, such as [0.4,0.7]"
        )
    steps = [share * total_steps for share in at]
    return LambdaLR(optimizer, lambda step: factor ** sum(step >= milestone for milestone in steps))


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


def inverse(optimizer: Optimizer, total_steps: int, alpha: float, beta: float) -> LambdaLR:
    """lr / (1 + α p)^β, p the part of the steps that is done (Ganin et al. 2016, JMLR 17(59), section 5.2.2).

    Raises:
        ValueError: `alpha` or `beta` is below 0.
    """
    if alpha < 0 or beta < 0:
        raise ValueError(f"scheduler.alpha is {alpha} and scheduler.beta {beta}, but they must be 0 or more")
    return LambdaLR(optimizer, lambda step: (1 + alpha * step / total_steps) ** -beta)


def constant_linear(optimizer: Optimizer, total_steps: int, level: float) -> LambdaLR:
    """Each group's own learning rate over the first `level` of the steps, then down to 0 in a straight line (Zhu et al.
    2017, arXiv 1703.10593, section 4).

    Raises:
        ValueError: `level` is not a share of the steps.
    """
    if not 0 <= level < 1:
        raise ValueError(f"scheduler.level is {level}, but it must be from 0 up to, not including, 1")
    return LambdaLR(optimizer, lambda step: min(1.0, max(0.0, (1 - step / total_steps) / (1 - level))))


def poly(optimizer: Optimizer, total_steps: int, power: float) -> LambdaLR:
    """lr (1 − i/N)^power in step i of N (Liu et al. 2015, arXiv 1506.04579, section 4.1).

    Raises:
        ValueError: `power` is not above 0.
    """
    if not power > 0:
        raise ValueError(f"scheduler.power is {power}, but it must be above 0")
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total_steps) ** power)


class WarmupStableDecay(LambdaLR):
    """Up to each group's own learning rate over the first `warmup` of the steps, level, and down to nothing in a
    straight line over the last `decay` of them (Hägele et al. 2024, arXiv 2405.18392, whose linear form this is).

    What was trained on the plateau does not depend on where it ends: a state of it goes on under a schedule of more
    steps, whose warm-up then is the one that was.

    Attributes:
        warm: steps on the way up.
        plateau_end: steps after which the decay begins; the state after so many is the plateau's last.

    Raises:
        ValueError: `warmup` or `decay` is not a share of the steps, or they overlap.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float, decay: float):
        if not (0 <= warmup < 1 and 0 < decay <= 1 and warmup + decay <= 1):
            raise ValueError(
                f"scheduler.warmup is {warmup} and scheduler.decay {decay}, but they must be shares of the steps, the"
                " latter above 0, that come to 1 at most"
            )
        self.total, self.warm, self.plateau_end = total_steps, warmup * total_steps, level_until(total_steps, decay)
        super().__init__(optimizer, lambda step: self.factor(step))

    def factor(self, step: int) -> float:
        """Of the learning rate, in the step after so many."""
        if step < self.warm:
            return (step + 1) / (self.warm + 1)
        return min(1.0, (self.total - step) / max(1, self.total - self.plateau_end))

    def rewind(self, step: int) -> None:
        """Puts its place, which is on the plateau, back to `step`: of a longer span as much has been done."""
        self.last_epoch, self.warm = step, min(self.warm, step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where it is, and the warm-up that it had; its length and the plateau's end stay this schedule's own."""
        own = {"total": self.total, "plateau_end": self.plateau_end}
        super().load_state_dict(state_dict | own)


def level_until(total_steps: int, decay: float) -> int:
    """How many of the steps come before the decay."""
    return math.floor(total_steps * (1 - decay) + 1e-9)  # 0.8 of 10 is 8, whatever the floating point says
