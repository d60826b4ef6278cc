"""Linear forecasts: DLinear and NLinear (Zeng et al. 2023, arXiv 2205.13504), with a variance for each lead."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.spec import Spec
from lightning_modules.forecasting.network import Forecast, Forecaster, Masks, filled_forward, level_of

MOVING_AVERAGE = 25  # steps


class Linear(Forecaster):
    """What both share: each target is forecast from its own past by one map for all; σ is learned for each lead."""

    def __init__(self, spec: Spec, center: str = "last"):
        super().__init__(spec, center)
        self.spread = nn.Parameter(torch.zeros(spec.horizon, len(spec.target)))  # log variance above s⁰

    def past(self, x: Tensor, observed: Tensor) -> Tensor:
        """The targets' past (B, targets, L), missing values filled forward."""
        return filled_forward(x, observed)[..., self.target].mT


class DLinear(Linear):
    """A moving average over 25 steps, ends repeated, and what is left of the window; a linear map of each, summed.

    The window is not centred: centred it would be NLinear with a detour.
    """

    centred = False

    def __init__(self, spec: Spec):
        super().__init__(spec)
        self.trend, self.season = (nn.Linear(spec.window, spec.horizon) for _ in range(2))

    def forecast(self, x: Tensor, observed: Tensor, masks: Masks) -> Forecast:
        past = self.past(x, observed)
        trend = moving_average(past)
        mean = (self.trend(trend) + self.season(past - trend)).mT
        return self.gaussian(mean, self.spread.expand(mean.shape))


class NLinear(Linear):
    """The window less its last value through a linear map, and that value added: f(x + c) = f(x) + c."""

    def __init__(self, spec: Spec, center: str = "last"):
        super().__init__(spec, center)
        self.map = nn.Linear(spec.window, spec.horizon)

    def forecast(self, x: Tensor, observed: Tensor, masks: Masks) -> Forecast:
        level = level_of(x, observed, self.center)[:, self.target, None]  # (B, targets, 1)
        mean = (self.map(self.past(x, observed) - level) + level).mT
        return self.gaussian(mean, self.spread.expand(mean.shape))


def moving_average(past: Tensor) -> Tensor:
    """Over MOVING_AVERAGE steps of (B, channels, L), both ends repeated."""
    side = (MOVING_AVERAGE - 1) // 2
    return F.avg_pool1d(F.pad(past, (side, side), mode="replicate"), MOVING_AVERAGE, stride=1)
