"""Figures of forecasts: of each value first, then their means, pooled and by lead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from lightning_modules.forecasting.calibration import Calibrated
from lightning_modules.forecasting.likelihood import (
    gaussian_crps,
    gaussian_nll,
    mixture_cdf,
    mixture_crps,
    mixture_nll,
    mixture_quantile,
    pinball,
    total_variance,
)

LEVELS = (0.5, 0.8, 0.9, 0.95)  # of intervals
DECILES = tuple(tenth / 10 for tenth in range(1, 10))  # of the pinball loss
AT_LEADS = (1, 24, 96)
BINS = 20  # of the histogram of PIT
CHUNK = 2**20  # numbers of all passes at once


class Forecasts(NamedTuple):
    """Of N windows, scaled, NumPy: mean and variance (N, H, targets), and what part of the variance is epistemic; the
    passes behind them (T, N, H, targets), where there are any; and intervals of other than Gaussian quantiles."""

    mean: np.ndarray
    variance: np.ndarray
    epistemic: np.ndarray | None = None
    passes: tuple[Tensor, Tensor] | None = None  # means, variances
    half_widths: dict[float, np.ndarray] | None = None  # by level


def of_passes(means: Tensor, variances: Tensor) -> Forecasts:
    """The mixture of passes (T, N, H, targets)."""
    epistemic, aleatoric = total_variance(means.double(), variances.double())
    variance = (epistemic + aleatoric).numpy()
    return Forecasts(means.double().mean(0).numpy(), variance, epistemic.numpy(), (means, variances))


def standardised(forecasts: Forecasts, y: np.ndarray) -> np.ndarray:
    """|y − μ|/√V, what calibration goes by."""
    return np.abs(y - forecasts.mean) / np.sqrt(forecasts.variance)


def calibrate(forecasts: Forecasts, calibrated: Calibrated) -> Forecasts:
    """N(μ, r² V), and intervals from the scores' own quantiles; the passes are left behind."""
    sigma = np.sqrt(forecasts.variance)
    half_widths = {level: half * sigma for level, half in calibrated.half_widths.items()}
    return Forecasts(forecasts.mean, forecasts.variance * calibrated.factor**2, half_widths=half_widths)


def each_value(forecasts: Forecasts, y: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of every value (N, H, targets); NaN where it is missing."""
    mean, variance, sigma = forecasts.mean, forecasts.variance, np.sqrt(forecasts.variance)
    error, given = y - mean, torch.from_numpy(y)
    gaussian = torch.from_numpy(mean), torch.from_numpy(sigma)
    found = {"se": error**2, "ae": np.abs(error)}
    found["nll_gaussian"] = gaussian_nll(given, gaussian[0], torch.from_numpy(variance).log()).numpy()
    if forecasts.passes is not None and len(forecasts.passes[0]) > 1:
        found |= of_mixture(given, *forecasts.passes)
    else:
        found |= {"nll": found["nll_gaussian"], "crps": gaussian_crps(given, *gaussian).numpy()}
        found["pit"] = ndtr(error / sigma)
        found |= {f"_{p:g}": mean + sigma * ndtri(p) for p in quantiles_needed()}
    found["pinball"] = np.mean([pinball_of(y, found[f"_{p:g}"], p) for p in DECILES], 0)
    for level in LEVELS:
        if forecasts.half_widths is not None:
            low, high = mean - forecasts.half_widths[level], mean + forecasts.half_widths[level]
        else:
            low, high = (found[f"_{round(p, 4):g}"] for p in ((1 - level) / 2, (1 + level) / 2))
        name = f"{level * 100:g}"
        inside = ((low <= y) & (y <= high)).astype(float)
        found |= {f"coverage_{name}": np.where(np.isnan(y), np.nan, inside), f"width_{name}": high - low}
    if forecasts.epistemic is not None:
        found |= {"epistemic": forecasts.epistemic, "aleatoric": variance - forecasts.epistemic}
    return {name: value for name, value in found.items() if name[0] != "_"}


def quantiles_needed() -> list[float]:
    ends = [round((1 + side * level) / 2, 4) for level in LEVELS for side in (-1, 1)]
    return sorted({*ends, *DECILES})


def pinball_of(y: np.ndarray, quantile: np.ndarray, p: float) -> np.ndarray:
    return pinball(torch.from_numpy(y), torch.from_numpy(quantile), p).numpy()


def of_mixture(y: Tensor, means: Tensor, variances: Tensor) -> dict[str, np.ndarray]:
    """Log score, CRPS, PIT and quantiles of passes, in pieces."""
    rows = max(1, CHUNK // means[:, 0].numel())
    pieces = []
    for first in range(0, len(y), rows):
        part = slice(first, first + rows)
        given = y[part].to(means.dtype), means[:, part], variances[:, part]
        piece = {"nll": mixture_nll(*given), "crps": mixture_crps(*given), "pit": mixture_cdf(*given)}
        piece |= {f"_{p:g}": mixture_quantile(p, *given[1:]) for p in quantiles_needed()}
        pieces.append(piece)
    return {name: torch.cat([piece[name] for piece in pieces]).double().numpy() for name in pieces[0]}


def summary(values: dict[str, np.ndarray], y: np.ndarray) -> dict[str, float]:
    """Means over all values that are there; R² is 1 − SSE/SST, SST about each target's own mean."""
    plain = {name: value for name, value in values.items() if name not in ("se", "ae", "pit")}
    found = {name: float(np.nanmean(there(value, y))) for name, value in plain.items()}
    mse = float(np.nanmean(values["se"]))
    found |= {"mse": mse, "mae": float(np.nanmean(values["ae"])), "rmse": mse**0.5}
    spread = np.nanmean((y - np.nanmean(y, axis=(0, 1), keepdims=True)) ** 2)
    return found | {"r2": 1 - mse / float(spread) if spread > 0 else float("nan")}


def there(value: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(y), np.nan, value)


def at_lead(values: dict[str, np.ndarray], y: np.ndarray, lead: int) -> dict[str, float]:
    """The summary of one lead, from 1."""
    own = slice(lead - 1, lead)
    return summary({name: value[:, own] for name, value in values.items()}, y[:, own])


def by_lead(values: dict[str, np.ndarray], y: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each name the figures at all leads (H,)."""
    leads = [at_lead(values, y, lead) for lead in range(1, y.shape[1] + 1)]
    return {name: np.array([figures[name] for figures in leads]) for name in names}


def pit_histogram(values: dict[str, np.ndarray]) -> np.ndarray:
    """Shares of Φ-values in BINS equal parts of 0 … 1."""
    pit = values["pit"]
    counts = np.histogram(pit[~np.isnan(pit)], BINS, (0, 1))[0]
    return counts / max(1, counts.sum())
