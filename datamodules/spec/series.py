"""Windows of a series, and what follows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from datamodules.spec.shared import as_tuples, required


@dataclass(frozen=True)
class SeriesSpec:
    """Windows (window, channels) of a series, and the `horizon` values of its `target` channels that follow each.

    Scaling is of the training part alone. It is not compared: a network keeps what it was trained with, and goes on
    using it on other data of the same shape.

    Args:
        channels: the name of each.
        window: steps seen.
        horizon: steps forecast.
        target: the places of the channels that are forecast, in `channels`.
        period: steps of a season, a day of hourly data 24.
        mean, scale: of each channel, in its own units.
        log_variance: of each lead, and in it of each target, the logarithm of the variance of y[t+h] − y[t], scaled.
    """

    channels: tuple[str, ...]
    window: int
    horizon: int
    target: tuple[int, ...]
    period: int
    mean: tuple[float, ...] = field(compare=False, repr=False)
    scale: tuple[float, ...] = field(compare=False, repr=False)
    log_variance: tuple[float, ...] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        as_tuples(self, "channels", "target", "mean", "scale", "log_variance")

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the channels that are forecast."""
        return tuple(self.channels[place] for place in self.target)

    def __str__(self) -> str:
        return (
            f"a series of {len(self.channels)} channel{'s' * (len(self.channels) > 1)} ({', '.join(self.channels)[:60]}"
            f"), {self.window} steps seen, {self.horizon} of {', '.join(self.targets)[:60]} forecast"
        )


def require_series(spec: object, network: str) -> SeriesSpec:
    """`spec` itself when it describes a series.

    Raises:
        UsageError: it describes something else.
    """
    return required(spec, SeriesSpec, f"{network} forecasts series", "choose one, e.g. data=waves")
