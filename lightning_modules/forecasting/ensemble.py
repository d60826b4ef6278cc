"""Several runs as one forecast: a mixture of their Gaussians (Lakshminarayanan et al. 2017, arXiv 1612.01474)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.errors import UsageError
from datamodules.series import SeriesDataModule
from lightning_modules.forecasting.baselines import Scaling
from lightning_modules.forecasting.scores import Forecasts, each_value, of_passes
from lightning_modules.forecasting.testing import calibrated, figures_of
from reporting.predictions import read_predictions

log = logging.getLogger(__name__)

NEEDED = ("origin", "mean", "variance", "target")
STORED = ("store_origin", "store_mean", "store_variance")


def check_members(members: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """What the test of each run left.

    Raises:
        UsageError: there are not two, one was not tested, or they are of different data.
    """
    if not members or isinstance(members, str) or len(members) < 2:
        raise UsageError("stages=[ensemble] needs runs to put together: give members=[FOLDER,FOLDER], two or more.")
    found = []
    for member in members:
        folder = Path(str(member)).expanduser()
        if not (folder / "predictions.npz").is_file():
            raise UsageError(f"'{folder}' has no predictions.npz: give members=[…] folders of runs that were tested.")
        arrays = read_predictions(folder)
        if not arrays.keys() >= {*NEEDED}:
            raise UsageError(f"'{folder}' is no run of task=forecasting: give members=[…] folders of such runs.")
        found.append(arrays)
        first = found[0]
        same = all(first[key].shape == arrays[key].shape for key in ("origin", "target"))
        if not same or not np.allclose(first["target"], arrays["target"], rtol=0, atol=1e-5, equal_nan=True):
            raise UsageError(
                f"'{members[0]}' and '{folder}' forecast different values: members must be of the same data, target "
                "and horizon."
            )
    return found


def ensemble(members: Sequence[str], data: SeriesDataModule, calibration: str, window: int) -> dict[str, float]:
    """Figures under `ensemble/`, raw and calibrated; each member counts as a Gaussian of its mean and variance.

    Raises:
        UsageError: the members cannot be put together, or are of other data than this run's.
    """
    runs = check_members(members)
    spec = data.spec
    target = list(spec.target)
    scaling = Scaling(np.array(spec.mean)[target], np.array(spec.scale)[target])
    origins, y = runs[0]["origin"], runs[0]["target"].astype(np.float64)
    if origins[-1] + data.horizon >= len(data.series.values) or y.shape[1:] != (data.horizon, len(target)):
        raise UsageError("The members are of other data, or of another horizon, than this command: give it theirs.")
    here = (data.windows(origins).targets.double().numpy() - scaling.mean) / scaling.scale
    if not np.allclose(here, y, rtol=0, atol=1e-4, equal_nan=True):
        raise UsageError("The members are of other data than this command: give it theirs, with data=….")
    own, store = mixed(runs, "mean", "variance"), None
    if all(run.keys() >= {*STORED} for run in runs):
        store = runs[0]["store_origin"], mixed(runs, "store_mean", "store_variance")
    figures: dict[str, float] = {"ensemble/members": len(runs)}
    methods = {"": own} | calibrated(data, scaling, origins, own, y, store, calibration, window)
    for name, forecasts in methods.items():
        found = figures_of(name, each_value(forecasts, y), y, scaling)
        figures |= {f"ensemble/{key}": value for key, value in found.items()}
    log.info("ensemble: mse %.4f, crps %.4f", figures["ensemble/mse"], figures["ensemble/crps"])
    return figures


def mixed(runs: Sequence[dict[str, np.ndarray]], mean: str, variance: str) -> Forecasts:
    means, variances = (torch.from_numpy(np.stack([run[name] for run in runs])) for name in (mean, variance))
    return of_passes(means, variances)
