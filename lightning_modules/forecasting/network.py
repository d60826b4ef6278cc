"""What every forecasting network shares: its scaling, its centring, and a Gaussian for each lead."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec, require_series

CENTERS = ("last", "median5")
BELOW, ABOVE = 8.0, 6.0  # how far a log variance may go from the one that it begins with
Masks = dict[str, Tensor]


class Forecast(NamedTuple):
    """A Gaussian for each lead and target (B, H, targets), scaled; float32."""

    mean: Tensor
    log_variance: Tensor


class Forecaster(nn.Module):
    """Windows (B, L, C) in their own units → a `Forecast` of the H steps that follow, in units of the scaling.

    Mean and scale of each channel, and s⁰, the log variance of y[t+h] − y[t], are kept with the weights: on other data
    a trained network goes on scaling as it was trained.

    Args:
        spec: of the series.
        center: what is subtracted from a window and added to its forecast: the last observed value (last), or the
            median of the last five (median5), which an outlier at the end moves less.

    Raises:
        UsageError: the data is no series, or a choice is unknown.
    """

    centred = True  # is `center` used?

    def __init__(self, spec: Spec, center: str = "last"):
        super().__init__()
        self.spec = require_series(spec, type(self).__name__)
        choose("center", center, CENTERS)
        self.center = center
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.tensor(getattr(spec, name), dtype=torch.float32))
        start = torch.tensor(spec.log_variance, dtype=torch.float32)  # s⁰
        self.register_buffer("start", start.view(spec.horizon, len(spec.target)))

    @property
    def target(self) -> list[int]:
        return list(self.spec.target)

    def draw(self, generator: torch.Generator | None = None, rows: int = 1) -> Masks:
        """The masks of one pass; nothing where the network has none."""
        return {}

    def forward(self, x: Tensor, observed: Tensor | None = None, masks: Masks | None = None) -> Forecast:
        """Args:
        x: (B, L, C) in the series' own units.
        observed: (B, L, C); None: all that is no NaN. What is not observed may be anything.
        masks: of a pass with dropout, from `draw`; None: nothing is dropped.
        """
        observed = ~x.isnan() if observed is None else observed
        return self.forecast(self.scaled(x, observed), observed, masks or {})

    def scaled(self, x: Tensor, observed: Tensor) -> Tensor:
        """Windows in units of the scaling, 0 where not observed."""
        return ((x.float() - self.mean) / self.scale).masked_fill(~observed, 0.0)

    @abstractmethod
    def forecast(self, x: Tensor, observed: Tensor, masks: Masks) -> Forecast:
        """The same of scaled windows, 0 where not observed."""

    def scaled_targets(self, targets: Tensor) -> Tensor:
        """Targets (B, H, targets) in the units of the forecasts."""
        return (targets.float() - self.mean[self.target]) / self.scale[self.target]

    def gaussian(self, mean: Tensor, change: Tensor) -> Forecast:
        """A forecast whose log variance is s⁰ + `change`, not too far from s⁰; float32 whatever the network's."""
        return Forecast(mean.float(), self.start + change.float().clamp(-BELOW, ABOVE))


def choose(key: str, value: object, known: tuple[str, ...]) -> None:
    """Raises UsageError unless `value` is one of the known ones."""
    if value not in known:
        raise UsageError(f"model.{key} is {value!r}{did_you_mean(str(value), known)}: choose {' or '.join(known)}.")


def level_of(x: Tensor, observed: Tensor, center: str) -> Tensor:
    """What a window (B, L, C) is centred by (B, C): its last observed value, or the median of its last five; with
    nothing observed 0, the mean of the training part."""
    steps = torch.arange(1, x.shape[1] + 1, device=x.device)[None, :, None]
    places = (steps * observed).topk(min(5 if center == "median5" else 1, x.shape[1]), dim=1).values  # from 1; 0: none
    values = x.gather(1, (places - 1).clamp(min=0))
    found = values.masked_fill(places == 0, torch.nan).nanmedian(1).values
    return found.nan_to_num(0.0)


def filled_forward(x: Tensor, observed: Tensor) -> Tensor:
    """Each missing value of windows (B, L, C) replaced by the last observed before it; before the first by the first; 0
    with nothing observed."""
    steps = torch.arange(x.shape[1], device=x.device)[None, :, None]
    before = (steps * observed).cummax(1).values
    first = observed.int().argmax(1, keepdim=True)
    return x.gather(1, torch.maximum(before, first)) * observed.any(1, keepdim=True)
