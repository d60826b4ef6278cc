"""Missing values and outliers among the inputs; what follows stays as it is."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from datamodules.series import SeriesBatch, SeriesDataModule
from lightning_modules.forecasting.baselines import fitted, outcomes, past_of, with_variance
from lightning_modules.forecasting.network import CENTERS
from lightning_modules.forecasting.scores import Forecasts, each_value, of_passes

log = logging.getLogger(__name__)

MISSING, OUTLIERS = (10, 20, 30, 50, 70), (1, 2, 5, 10)  # per cent of the inputs
SIZE = 5.0  # of an outlier, in standard deviations of the training part
WINDOWS, PASSES = 360, 10  # of the test, evenly spread; of each forecast
STRESS_SEED = 0
ROBUST_MSE, ROBUST_COVERAGE = 1.25, 0.03  # at 30 % scattered: times the clean, below the clean


def stress(module: Any, data: SeriesDataModule) -> dict[str, float]:
    """Figures `stress/{kind}_{per cent}/{method}_{mse,coverage_90}`.

    Kinds: clean_0; missing values scattered and as one block; outliers. Methods: the network, and the last value, the
    seasonal naive and the ridge with missing values filled forward; the same spoiled windows for all. With outliers the
    network is centred both ways, and its MSE is also that of windows whose last value was hit, and of the others.
    """
    origins = data.origins("test")
    origins = origins[np.unique(np.linspace(0, len(origins) - 1, min(WINDOWS, len(origins))).astype(int))]
    clean = data.windows(origins)
    baselines = baseline_forecasts(module, data)
    found = scored(module, data, clean, baselines, "clean_0", np.zeros(len(origins), bool))
    for percent in MISSING:
        for kind, draw in (("scattered", scattered), ("block", block)):
            hidden = draw(clean.observed.shape, percent / 100)
            found |= scored(module, data, data.windows(origins, hidden), baselines, f"{kind}_{percent}")
    for percent in OUTLIERS:
        spoiled, hit = with_outliers(clean, percent / 100, np.array(data.spec.scale))
        found |= scored(
            module, data, spoiled, baselines, f"outliers_{percent}", hit[:, -1, list(data.spec.target)].any(1)
        )
    robust = found["stress/scattered_30/network_mse"] <= ROBUST_MSE * found["stress/clean_0/network_mse"]
    lost = found["stress/clean_0/network_coverage_90"] - found["stress/scattered_30/network_coverage_90"]
    found["stress/robust"] = float(robust and lost <= ROBUST_COVERAGE)
    log.info("stress: %s", "  ".join(f"{name[7:]} {value:.4f}" for name, value in found.items() if "network" in name))
    return found


def scattered(shape: tuple[int, ...], fraction: float) -> np.ndarray:
    """Each value of windows (N, L, C) by itself."""
    return np.random.default_rng(STRESS_SEED).random(shape) < fraction


def block(shape: tuple[int, ...], fraction: float) -> np.ndarray:
    """Of each window (L, C) so many steps in a row, of all channels."""
    length = round(fraction * shape[1])
    starts = np.random.default_rng(STRESS_SEED).integers(0, shape[1] - length + 1, (shape[0], 1))
    steps = np.arange(shape[1])
    inside = (steps >= starts) & (steps < starts + length)
    return np.broadcast_to(inside[..., None], shape)


def with_outliers(batch: SeriesBatch, fraction: float, scale: np.ndarray) -> tuple[SeriesBatch, np.ndarray]:
    """Each value up or down by SIZE with this probability; and which were hit (N, L, C)."""
    rng = np.random.default_rng(STRESS_SEED)
    hit = rng.random(batch.inputs.shape) < fraction
    signs = rng.choice([-1.0, 1.0], batch.inputs.shape)
    moved = batch.inputs + torch.from_numpy(hit * signs * SIZE * scale).float()
    return batch._replace(inputs=torch.where(batch.observed, moved, batch.inputs)), hit


def baseline_forecasts(module: Any, data: SeriesDataModule) -> Any:
    """Spoiled windows → the baselines' forecasts, with the variance of their errors on clean validation windows."""
    scaling, known = module.scaling, data.windows(data.origins("val"))
    methods = {name: forecast for name, forecast in fitted(data, scaling).items() if name != "climatology"}
    past, y = past_of(known, data, scaling), outcomes(known, scaling)
    errors = {name: y - forecast(past) for name, forecast in methods.items()}

    def forecasts(batch: SeriesBatch) -> dict[str, Forecasts]:
        own = past_of(batch, data, scaling)
        return {name: with_variance(forecast(own), errors[name]) for name, forecast in methods.items()}

    return forecasts


def scored(
    module: Any, data: SeriesDataModule, batch: SeriesBatch, baselines: Any, name: str, hit: np.ndarray | None = None
) -> dict[str, float]:
    """Figures of all methods on one kind of windows; `hit` (N,): whose last value is an outlier."""
    y = outcomes(batch, module.scaling)
    methods = {"network": of_network(module, batch)} | baselines(batch)
    network = module.network
    if hit is not None and network.centred:
        for center in (other for other in CENTERS if other != network.center):
            usual, network.center = network.center, center
            methods[f"network_{center}"] = of_network(module, batch)
            network.center = usual
    found = {}
    for method, forecasts in methods.items():
        values = each_value(forecasts, y)
        found[f"stress/{name}/{method}_mse"] = float(np.nanmean(values["se"]))
        found[f"stress/{name}/{method}_coverage_90"] = float(np.nanmean(values["coverage_90"]))
        if hit is not None and method.startswith("network"):
            for word, rows in {"hit": hit, "missed": ~hit}.items():
                if rows.any():
                    found[f"stress/{name}/{method}_mse_{word}"] = float(np.nanmean(values["se"][rows]))
    return found


def of_network(module: Any, batch: SeriesBatch) -> Forecasts:
    return of_passes(*module.forecast_passes(SeriesBatch(*(part.to(module.device) for part in batch)), PASSES))
