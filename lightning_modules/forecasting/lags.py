"""What each step of the window counts for: by attention, by hiding it, and whether these agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from datamodules.series import SeriesBatch, SeriesDataModule

WINDOWS = 96  # of the test part, evenly spread
GROUPS = 56  # stretches of the window that are hidden one after the other, at most


def some_windows(data: SeriesDataModule, device: torch.device) -> SeriesBatch:
    origins = data.origins("test")
    chosen = origins[np.unique(np.linspace(0, len(origins) - 1, min(WINDOWS, len(origins))).astype(int))]
    return SeriesBatch(*(part.to(device) for part in data.windows(chosen)))


def attention_by_lag(module: Any, data: SeriesDataModule) -> np.ndarray:
    """α (N, L) of some test windows, nothing dropped."""
    batch = some_windows(data, module.device)
    return module.network.attended(batch.inputs, batch.observed).cpu().numpy()


@torch.no_grad()
def occlusion_by_lag(module: Any, data: SeriesDataModule) -> np.ndarray:
    """How far the forecasts' means move, root mean square, when a stretch of the window is hidden (L,)."""
    batch, network = some_windows(data, module.device), module.network
    whole = network(batch.inputs, batch.observed).mean
    found = np.empty(data.window)
    for steps in np.array_split(np.arange(data.window), min(GROUPS, data.window)):
        observed = batch.observed.clone()
        observed[:, steps] = False
        moved = network(batch.inputs, observed).mean - whole
        found[steps] = moved.square().mean().sqrt().item()
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where one is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)
