"""The test: a network's forecasts raw and calibrated, and every baseline, on the same windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.series import SeriesDataModule
from lightning_modules.forecasting.baselines import Scaling, fitted, oracles, outcomes, past_of, with_variance
from lightning_modules.forecasting.calibration import rolling_calibration, split_calibration
from lightning_modules.forecasting.scores import (
    AT_LEADS,
    LEVELS,
    Forecasts,
    at_lead,
    by_lead,
    calibrate,
    each_value,
    pit_histogram,
    standardised,
    summary,
)

BRIEF = ("mse", "mae", "r2", "crps", "nll", "coverage_90", "width_90")  # of baselines, and at leads
LEAD_FIGURES = ("mse", "r2", "crps", "coverage_90", "width_90")
CALIBRATIONS = ("none", "split", "rolling")


def compare(
    data: SeriesDataModule,
    scaling: Scaling,
    origins: np.ndarray,
    own: Forecasts,
    store: tuple[np.ndarray, Forecasts] | None,
    calibration: str,
    window: int,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Figures by name, and arrays for the report, of forecasts made at `origins`.

    Args:
        own: the network's.
        store: rows and forecasts of validation windows and of those between validation and test; None: no calibration.
        calibration: none, split, or rolling (which has split beside it).
        window: scores of a rolling calibration.
    """
    y = outcomes(data.windows(origins), scaling)
    methods = {"": own} | calibrated(data, scaling, origins, own, y, store, calibration, window)
    methods |= baselines(data, scaling, origins, y, store is not None and calibration == "rolling", window)
    methods |= oracles(data, origins, scaling)
    figures: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {"methods": np.array([name or "network" for name in methods])}
    leads, pits, weeks, coverage = [], [], {}, []
    for name, forecasts in methods.items():
        values = each_value(forecasts, y)
        figures |= figures_of(name, values, y, scaling)
        leads.append(by_lead(values, y, LEAD_FIGURES))
        pits.append(pit_histogram(values))
        coverage.append([np.nanmean(values[f"coverage_{level * 100:g}"]) for level in LEVELS])
        weeks[name] = np.nanmean(values["coverage_90"], (1, 2)), np.nanmean(values["width_90"], (1, 2))
        if name == "":
            arrays["window_crps"] = np.nanmean(values["crps"], (1, 2))
    arrays |= {f"lead_{name}": np.stack([own[name] for own in leads]) for name in LEAD_FIGURES}
    arrays["pit"], arrays["coverage"] = np.stack(pits), np.array(coverage)
    arrays["coverage_at"], arrays["width_at"] = (np.stack([pair[n] for pair in weeks.values()]) for n in range(2))
    return figures, arrays


def figures_of(name: str, values: dict[str, np.ndarray], y: np.ndarray, scaling: Scaling) -> dict[str, float]:
    """A method's figures; of the network's and its calibrations all, in the target's own units too."""
    found = summary(values, y)
    prefix = f"{name}/" if name else ""
    if name not in ("", "split", "rolling"):
        return {f"{prefix}{key}": found[key] for key in BRIEF}
    if not name and len(scaling.scale) == 1:
        found |= {f"{key}_in_units": found[key] * float(scaling.scale[0]) for key in ("mae", "rmse")}
    for lead in AT_LEADS:
        if not name and lead <= y.shape[1]:
            own = at_lead(values, y, lead)
            found |= {f"{key}_at_{lead}": own[key] for key in BRIEF}
    return {f"{prefix}{key}": value for key, value in found.items()}


def calibrated(
    data: SeriesDataModule,
    scaling: Scaling,
    origins: np.ndarray,
    own: Forecasts,
    y: np.ndarray,
    store: tuple[np.ndarray, Forecasts] | None,
    calibration: str,
    window: int,
) -> dict[str, Forecasts]:
    """The forecasts with the size of errors learned from validation, and from the latest errors known."""
    if calibration == "none" or store is None:
        return {}
    before, earlier = store
    scores = standardised(earlier, outcomes(data.windows(before), scaling))
    validation = before < data.series.ends[1] - data.horizon if data.split == "temporal" else slice(None)
    found = {"split": calibrate(own, split_calibration(scores[validation], y.shape, LEVELS))}
    if calibration == "rolling" and data.split == "temporal":
        rows = np.concatenate([before, origins])
        both = np.concatenate([scores, standardised(own, y)])
        found["rolling"] = calibrate(own, rolling_calibration(rows, both, origins, LEVELS, window))
    return found


def baselines(
    data: SeriesDataModule, scaling: Scaling, origins: np.ndarray, y: np.ndarray, rolling: bool, window: int
) -> dict[str, Forecasts]:
    """Each baseline with the variance of its validation errors; the ridge calibrated as the network is, too."""
    before = np.concatenate([data.origins("val"), data.origins("between")])
    known, given = data.windows(before), data.windows(origins)
    past, earlier = past_of(given, data, scaling), past_of(known, data, scaling)
    errors = outcomes(known, scaling)
    validation = len(data.origins("val"))
    found = {}
    for name, forecast in fitted(data, scaling).items():
        own = errors - forecast(earlier)
        found[name] = with_variance(forecast(past), own[:validation])
        if name == "ridge" and rolling and data.split == "temporal":
            sigma = np.sqrt(found[name].variance[0])
            scores = np.concatenate([np.abs(own) / sigma, standardised(found[name], y)])
            rows = np.concatenate([before, origins])
            found["ridge_rolling"] = calibrate(found[name], rolling_calibration(rows, scores, origins, LEVELS, window))
    return found


def passes_over(
    forecast: Callable[[Any], tuple[Tensor, Tensor]], data: SeriesDataModule, origins: np.ndarray, rows: int
) -> tuple[Tensor, Tensor]:
    """Means and variances (T, N, H, targets) of all passes over these windows, so many at a time."""
    pieces = [forecast(data.windows(origins[first : first + rows])) for first in range(0, len(origins), rows)]
    means, variances = zip(*pieces, strict=True)
    return torch.cat(means, 1), torch.cat(variances, 1)
