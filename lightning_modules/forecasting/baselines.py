"""What every forecast is held against: forecasts that need no network, with a variance from validation errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from datamodules.series import SeriesBatch, SeriesDataModule
from lightning_modules.forecasting.network import filled_forward
from lightning_modules.forecasting.scores import Forecasts

PENALTIES = tuple(10.0**power for power in range(-2, 5))  # of the ridge, chosen on validation errors
PIECE = 2**23  # numbers of windows at once


class Windows(NamedTuple):
    """The targets' own past (N, L, targets), scaled, missing values filled forward; rows of the last values (N,)."""

    past: np.ndarray
    origins: np.ndarray


Baseline = Callable[[Windows], np.ndarray]


class Scaling(NamedTuple):
    """Mean and scale of the targets (targets,)."""

    mean: np.ndarray
    scale: np.ndarray


def past_of(batch: SeriesBatch, data: SeriesDataModule, scaling: Scaling) -> Windows:
    """A batch as the baselines see it."""
    target = list(data.spec.target)
    filled = filled_forward(batch.inputs, batch.observed)[..., target].double().numpy()
    nothing = ~batch.observed.any(1)[:, target].numpy()
    past = (filled - scaling.mean) / scaling.scale
    return Windows(np.where(nothing[:, None], 0.0, past), batch.origins.numpy())


def outcomes(batch: SeriesBatch, scaling: Scaling) -> np.ndarray:
    """What followed (N, H, targets), scaled; NaN where missing."""
    return (batch.targets.double().numpy() - scaling.mean) / scaling.scale


def fitted(data: SeriesDataModule, scaling: Scaling) -> dict[str, Baseline]:
    """The last value; the value a season ago; the mean of that phase of the season; and ridge regression.

    Seasonal naive and climatology are left out where a season is longer than the window.
    """
    horizon, period = data.horizon, data.series.period
    found: dict[str, Baseline] = {"last": lambda windows: np.repeat(windows.past[:, -1:], horizon, 1)}
    if data.window >= period:
        places = np.arange(horizon) % period - period
        found["seasonal"] = lambda windows: windows.past[:, places]
    values = (data.series.values[:, list(data.spec.target)] - scaling.mean) / scaling.scale
    found["climatology"] = climatology(values[: data.series.ends[0]], period, horizon)
    found["ridge"] = ridge(data, scaling)[0]
    return found


def climatology(train: np.ndarray, period: int, horizon: int) -> Baseline:
    """The mean of the training part at each phase of the season; of one without a value 0, the mean of all."""
    phases = np.arange(len(train)) % period
    sums = np.zeros((period, train.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, phases, np.nan_to_num(train))
    np.add.at(counts, phases, ~np.isnan(train))
    means = sums / np.maximum(counts, 1)
    return lambda windows: means[(windows.origins[:, None] + np.arange(1, horizon + 1)) % period]


def ridge(data: SeriesDataModule, scaling: Scaling) -> tuple[Baseline, np.ndarray]:
    """Least squares with an L2 penalty from the window less its last value to the H values less it; one map for all
    targets, the penalty chosen on validation windows. Also its weights (L, H)."""
    lags, horizon = data.window, data.horizon
    gram, moment = np.zeros((lags + 1, lags + 1)), np.zeros((lags + 1, horizon))
    for x, y in pairs(data, "train", scaling):
        gram, moment = gram + x.T @ x, moment + x.T @ y
    held = [*pairs(data, "val", scaling)]
    roots, vectors = np.linalg.eigh(gram)
    best = (np.inf, moment)
    for penalty in PENALTIES:
        weights = vectors @ ((vectors.T @ moment) / (np.maximum(roots, 0) + penalty)[:, None])
        error = sum(np.square(y - x @ weights).sum() for x, y in held)
        best = min(best, (error, weights), key=lambda pair: pair[0])
    weights = best[1]

    def forecast(windows: Windows) -> np.ndarray:
        level = windows.past[:, -1:]
        return (with_one((windows.past - level).swapaxes(1, 2)) @ weights).swapaxes(1, 2) + level

    return forecast, weights[:-1]


def pairs(data: SeriesDataModule, split: str, scaling: Scaling) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Centred windows with a one (n, L + 1) and centred outcomes (n, H), in pieces; without those that lack a value."""
    origins = data.origins(split)
    rows = max(1, PIECE // (data.window * len(data.spec.target)))
    for first in range(0, len(origins), rows):
        batch = data.windows(origins[first : first + rows])
        past, y = past_of(batch, data, scaling).past, outcomes(batch, scaling)
        level = past[:, -1:]
        x = with_one((past - level).swapaxes(1, 2)).reshape(-1, data.window + 1)
        y = (y - level).swapaxes(1, 2).reshape(-1, data.horizon)
        kept = ~np.isnan(y).any(1)
        yield x[kept], y[kept]


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], -1)


def with_variance(mean: np.ndarray, errors: np.ndarray) -> Forecasts:
    """Forecasts with the variance that a lead's and target's validation errors (M, H, targets) have about 0."""
    variance = np.nanmean(np.square(errors), 0) if len(errors) else np.ones(mean.shape[1:])
    variance = np.where(np.isnan(variance) | (variance <= 0), 1e-12, variance)
    return Forecasts(mean, np.broadcast_to(variance, mean.shape).copy())


def oracles(data: SeriesDataModule, origins: np.ndarray, scaling: Scaling) -> dict[str, Forecasts]:
    """The best forecasts of a series whose truth is known; of one that shifts also those of who does not know of it."""
    found = {}
    for name, shifted in {"oracle": True, "oracle_unshifted": False}.items():
        truth = data.truth(origins, shifted)
        if truth is not None and (shifted or getattr(data, "shift", "none") != "none"):
            mean, variance = truth
            found[name] = Forecasts((mean - scaling.mean) / scaling.scale, variance / scaling.scale**2)
    return found


def of_scaling(mean: torch.Tensor, scale: torch.Tensor, target: list[int]) -> Scaling:
    """A network's own."""
    return Scaling(*(part[target].double().cpu().numpy() for part in (mean, scale)))
