"""The task: Gaussian forecasts of a series, Monte Carlo dropout, intervals raw and calibrated, baselines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.series import SeriesBatch, SeriesDataModule
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from lightning_modules.forecasting.baselines import Scaling, of_scaling
from lightning_modules.forecasting.ensemble import check_members, ensemble
from lightning_modules.forecasting.likelihood import gaussian_nll
from lightning_modules.forecasting.network import Forecaster, Masks
from lightning_modules.forecasting.recurrent import Recurrent
from lightning_modules.forecasting.report import report_sections
from lightning_modules.forecasting.scores import of_passes
from lightning_modules.forecasting.stress import stress
from lightning_modules.forecasting.testing import CALIBRATIONS, compare, passes_over
from reporting.report import Section

log = logging.getLogger(__name__)

MOST = 10_000  # passes
SHOWN_PATHS = 240  # windows whose passes are kept for the report, one after the other


class Forecasting(Task):
    """Negative log-likelihood of the H values that follow a window, each under a Gaussian of its own.

    Logs `loss` (nats per value, scaled) and `mse` for train and val, of single passes, those of val without masks. The
    test is of the mixture of `passes` passes with masks on, each with the same mask for all windows: `mse`, `mae`,
    `rmse`, `r2`, `nll` (of the mixture), `nll_gaussian` (of a Gaussian of its mean and variance), `crps`, `pinball`,
    `coverage_50|80|90|95`, `width_50|80|90|95`, `epistemic`, `aleatoric`, pooled over leads and at leads 1, 24 and 96
    (`mse_at_24`); the same under `split/` and `rolling/` for the calibrated intervals; and under `last/`, `seasonal/`,
    `climatology/`, `ridge/`, `ridge_rolling/` and `oracle/` for what needs no network. All in scaled units.

    Args:
        network: windows → Gaussians.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        length_scale: l of the prior over the weights: l² / (2N(1 − p)) of their squares is added to the loss where
            their inputs are dropped, l² / (2N) of the biases' (Gal & Ghahramani 2016, arXiv 1506.02142, eq. 7, for
            masks scaled by 1/(1 − p)), N = windows · H · targets; null: nothing is added.
        passes: of Monte Carlo dropout.
        mc_chunk: windows of a pass at once.
        calibration: none; split: by the errors on validation windows; rolling: by the latest errors known as well.
        calibration_window: so many.
        seed: of the test's masks.

    Raises:
        UsageError: a number is impossible.
    """

    bar = ("loss", "mse")

    def __init__(
        self,
        network: Forecaster,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        length_scale: float | None = 1.0,
        passes: int = 50,
        mc_chunk: int = 256,
        calibration: str = "rolling",
        calibration_window: int = 720,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        for name, value in {"passes": passes, "mc_chunk": mc_chunk, "calibration_window": calibration_window}.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
                raise UsageError(f"task.module.{name} is {value!r}, but it must be a whole number from 1 to {MOST:,}.")
        fine = isinstance(length_scale, (int, float)) and not isinstance(length_scale, bool) and 0 < length_scale < 1e6
        if length_scale is not None and not fine:
            raise UsageError(f"task.module.length_scale is {length_scale!r}, but it must be above 0, or null.")
        if calibration not in CALIBRATIONS:
            raise UsageError(f"task.module.calibration is {calibration!r}: choose {', '.join(CALIBRATIONS)}.")
        self.length_scale, self.mc_chunk, self.seed = length_scale, mc_chunk, seed
        self.calibration, self.calibration_window = calibration, calibration_window
        self.drops = isinstance(network, Recurrent) and bool(network.draw())  # in training, whatever the passes
        self.passes = passes if self.drops else 1

    @property
    def scaling(self) -> Scaling:
        return of_scaling(self.network.mean, self.network.scale, self.network.target)

    def check_stages(self, run: Any) -> None:
        if self.passes == 1:
            log.info("One pass, or nothing that is dropped: epistemic variance is 0.")
        if "ensemble" in run.config.stages:
            check_members(run.config.members)

    # Training

    def measure(self, batch: SeriesBatch, split: str) -> Measured:
        if split == "test":
            means, variances = self.forecast_passes(batch)
            rows = {"origin": batch.origins, "_means": means.movedim(1, 0), "_variances": variances.movedim(1, 0)}
            return Measured(torch.zeros(()), {}, rows)
        y = self.network.scaled_targets(batch.targets)
        there = ~y.isnan()
        y = y.nan_to_num(0.0)
        mean, log_variance = self.network(
            batch.inputs, batch.observed, self.masks(len(y)) if split == "train" else None
        )
        losses = gaussian_nll(y, mean, log_variance) * there
        count = there.sum().clamp(min=1)
        loss = losses.sum() / count + (self.penalty() if split == "train" else 0.0)
        of_item = there.flatten(1).sum(1)
        squares = ((y - mean).detach().square() * there).flatten(1).sum(1)
        return Measured(loss, {"loss": Ratio(losses.flatten(1).sum(1), of_item), "mse": Ratio(squares, of_item)})

    def masks(self, rows: int) -> Masks:
        """Of a training step: one for the batch, of each window where that costs nothing more."""
        each = isinstance(self.network, Recurrent) and (self.network.engine == "loop" or self.network.kind == "naive")
        return self.network.draw(rows=rows if each else 1)

    def penalty(self) -> Tensor | float:
        """What the prior over the weights adds to the loss."""
        if self.length_scale is None or not self.drops:
            return 0.0
        of_weights, of_biases = self.decay(self.trainer.datamodule)
        weights, biases = self.network.decayed()
        return of_weights * sum(w.square().sum() for w in weights) + of_biases * sum(b.square().sum() for b in biases)

    def decay(self, data: SeriesDataModule) -> tuple[float, float]:
        """λ of weights whose inputs are dropped, and of biases; torch's `weight_decay` would be twice that."""
        values = len(data.origins("train")) * data.horizon * len(data.spec.target)
        of_biases = (self.length_scale or 0.0) ** 2 / (2 * values)
        return of_biases / (1 - self.network.p), of_biases

    # Test

    @torch.no_grad()
    def forecast_passes(self, batch: SeriesBatch, passes: int | None = None) -> tuple[Tensor, Tensor]:
        """Means and variances (T, B, H, targets) of passes with masks from the seed, the same for every batch; on the
        CPU. One without masks where the network has none."""
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for _ in range(min(self.passes, passes or self.passes)):
            masks = self.network.draw(generator) if self.passes > 1 else None
            pieces = [
                self.network(*piece, masks)
                for piece in zip(batch.inputs.split(self.mc_chunk), batch.observed.split(self.mc_chunk), strict=True)
            ]
            mean, log_variance = (torch.cat(parts) for parts in zip(*pieces, strict=True))
            found.append((mean.cpu(), log_variance.exp().cpu()))
        means, variances = zip(*found, strict=True)
        return torch.stack(means), torch.stack(variances)

    def passes_of(self, data: SeriesDataModule, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """The same of windows by their origins."""

        def forecast(batch: SeriesBatch) -> tuple[Tensor, Tensor]:
            return self.forecast_passes(SeriesBatch(*(part.to(self.device) for part in batch)))

        return passes_over(forecast, data, origins, data.eval_batch_size)

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Any]) -> dict[str, Any]:
        """The test's figures, and what the report draws."""
        if split != "test":
            return {}
        data, origins = self.trainer.datamodule, rows["origin"].numpy()
        passes = tuple(rows[name].movedim(0, 1) for name in ("_means", "_variances"))
        own, store, kept = of_passes(*passes), None, {}
        if self.calibration != "none":
            before = np.concatenate([data.origins("val"), data.origins("between")])
            earlier = of_passes(*self.passes_of(data, before))
            store = before, earlier
            kept = {"store_origin": before, "store_mean": earlier.mean, "store_variance": earlier.variance}
        how = store, self.calibration, self.calibration_window
        figures, arrays = compare(data, self.scaling, origins, own, *how)
        target = self.network.scaled_targets(data.windows(origins).targets.to(self.device)).cpu().numpy()
        kept |= {"mean": own.mean, "variance": own.variance, "variance_epistemic": own.epistemic, "target": target}
        kept = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in kept.items()}
        return figures | arrays | kept | {"paths": passes[0][:, :SHOWN_PATHS, 0, 0].numpy()}

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of each test window the CRPS, and the squared error."""
        errors = np.square(predictions["target"].astype(np.float64) - predictions["mean"])
        return {"crps": predictions["window_crps"], "mse": np.nanmean(errors, (1, 2))}

    # Stages

    def stage_stress(self, run: Any) -> None:
        """Missing values and outliers among the inputs; figures under `stress/`."""
        run.metrics |= stress(self, run.datamodule)

    def stage_ensemble(self, run: Any) -> None:
        """The runs of `members` as one forecast; figures under `ensemble/`."""
        run.metrics |= ensemble(run.config.members, run.datamodule, self.calibration, self.calibration_window)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self, run)
