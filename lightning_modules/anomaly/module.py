"""The task: the evidence lower bound of normal images, and scores of how anomalous others are."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError, did_you_mean
from lightning_modules.anomaly.baselines import Baselines
from lightning_modules.anomaly.bounds import kl_per_latent
from lightning_modules.anomaly.comparison import comparison_sections
from lightning_modules.anomaly.explore import explore
from lightning_modules.anomaly.judging import (
    THRESHOLDS,
    areas,
    at_threshold,
    auc_within,
    correlation,
    quantile_threshold,
    youden_threshold,
)
from lightning_modules.anomaly.likelihoods import make_likelihood
from lightning_modules.anomaly.maps import check_map, map_errors
from lightning_modules.anomaly.report import report_sections
from lightning_modules.anomaly.scores import SCORES, TrainingLatents, image_scores, in_batches, score_names
from lightning_modules.anomaly.vae import VAE, draw
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]
ACTIVE = 0.01  # variance of a latent's posterior mean over images above which it is in use (Burda et al. 2016)


class AnomalyDetection(Task):
    """β-VAE training on normal images, −E_q[log p(x|z)] + β · KL(q(z|x) ‖ p(z)); scores of all test images.

    Sums over pixels and over latents, means over images, in nats: with a mean over pixels β would be that many times
    as large. Logs, for train and val: `loss` (with the whole β), `nats_per_image` (−ELBO, β = 1), `reconstruction`,
    `kl`. For test, of the normal images: these and `iwae`, `psnr`, `ssim`, `active_units`, `bits_per_dim` under a
    discretised likelihood; `psnr_anomalies`; and, where there are anomalies, `auc_roc_<score>` of every score and
    baseline, and of the score that `score` names `auc_roc`, `auc_pr`, `auc_pr_normal`, `prevalence`, `threshold`,
    `sensitivity`, `specificity`, `balanced_accuracy`, `correlation_brightness`, `correlation_contrast` and
    `auc_within_contrast`. The threshold is read off validation images, never off test images.

    Args:
        network: a `VAE`.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        beta: weight of the KL (Higgins et al. 2017, equation 4).
        beta_warmup: β grows from 0 over this part of training.
        likelihood: `gaussian`, `discretised` or `bernoulli`: see `likelihoods.py`.
        sigma: of the former two, a number or `learned`; `auto`: learned.
        iwae_samples: K of the test's bounds.
        score: the one that decides: see `scores.py`. It is fixed beforehand, never by what it reaches.
        threshold: `quantile` of the normal validation images' scores; or `youden_val`, which sees anomalies too.
        quantile: that one.
        seed: of the test's samples and of the isolation forest.

    Raises:
        UsageError: a number or a name is impossible.
    """

    bar = ("loss", "nats_per_image")

    def __init__(
        self,
        network: VAE,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        beta: float = 1.0,
        beta_warmup: float = 0.0,
        likelihood: str = "gaussian",
        sigma: float | str = "auto",
        iwae_samples: int = 64,
        score: str = "mse",
        threshold: str = "quantile",
        quantile: float = 0.95,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        if not 0 <= beta < math.inf:
            raise UsageError(f"task.module.beta is {beta}, but it must be 0 or more.")
        if not 0 <= beta_warmup <= 1:
            raise UsageError(f"task.module.beta_warmup is {beta_warmup}, but a part of training lies between 0 and 1.")
        if not 0 < quantile < 1:
            raise UsageError(f"task.module.quantile is {quantile}, but it must lie between 0 and 1, such as 0.95.")
        if not isinstance(iwae_samples, int) or not 1 <= iwae_samples <= 10_000:
            raise UsageError(f"task.module.iwae_samples is {iwae_samples}, but it must be from 1 to 10,000.")
        if threshold not in THRESHOLDS:
            near = did_you_mean(str(threshold), THRESHOLDS)
            raise UsageError(f"task.module.threshold is {threshold!r}{near}: choose {' or '.join(THRESHOLDS)}.")
        self.likelihood = make_likelihood(likelihood, network.spec.levels, sigma)
        if score not in (known := score_names(self.likelihood)):
            raise UsageError(
                f"task.module.score is {score!r}{did_you_mean(str(score), known)}: with "
                f"task.module.likelihood={likelihood} choose one of {', '.join(known)}."
            )
        self.beta, self.beta_warmup, self.iwae_samples = beta, beta_warmup, iwae_samples
        self.score, self.threshold, self.quantile, self.seed = score, threshold, quantile, seed
        self.latents: TrainingLatents | None = None  # these two are made when a test begins
        self.baselines: Baselines | None = None

    def check_stages(self, run: Any) -> None:
        data = run.datamodule
        if not hasattr(data, "normal_labels"):
            raise UsageError(
                f"data={run.config.choices.data} does not say what is normal: choose data with a normal class, e.g. "
                "data=digits_one_class."
            )
        if self.threshold == "youden_val" and not len(getattr(data.splits.get("val_anomalies"), "images", ())):
            raise UsageError(
                f"task.module.threshold=youden_val needs anomalies among the validation images, of which "
                f"data={run.config.choices.data} has none: choose quantile."
            )
        if "map" in run.config.stages:
            check_map(run)

    # Training

    def measure(self, batch: Batch, split: str) -> Measured:
        if split == "test":
            return self.measure_test(batch)
        images = batch[0]
        x = images.float() / (self.network.spec.levels - 1)
        mean, log_variance = self.network.encode(images)
        # Validation draws the same noise every time, so that its figures differ by the weights alone.
        noise = None if split == "train" else torch.Generator(x.device).manual_seed(self.seed)
        outputs = self.network.decode(draw(mean, log_variance, noise))
        reconstruction = -self.likelihood.log_prob(x, outputs)
        kl = kl_per_latent(mean, log_variance).sum(1)
        beta = self.beta
        if split == "train" and self.beta_warmup:
            beta *= min(1.0, self.part_done / self.beta_warmup)
        values = {"loss": reconstruction + self.beta * kl, "nats_per_image": reconstruction + kl}
        return Measured((reconstruction + beta * kl).mean(), {**values, "reconstruction": reconstruction, "kl": kl})

    # The test

    def on_test_start(self) -> None:
        """What scores are measured against: where training images lie in the latent space, and the baselines."""
        images = self.trainer.datamodule.splits["train"].images
        self.latents = self.latents_of(self.trainer.datamodule)
        self.baselines = Baselines(images, self.network.spec.levels, self.seed)

    @torch.no_grad()
    def latents_of(self, data: Any) -> TrainingLatents:
        batches = in_batches(data.splits["train"].images, data.eval_batch_size, self.device)
        return TrainingLatents(torch.cat([self.network.encode(batch)[0] for batch in batches]).cpu().numpy())

    def scores_of(self, images: Tensor) -> dict[str, Tensor]:
        return image_scores(self.network, self.likelihood, self.latents, images, self.iwae_samples, self.seed)

    def measure_test(self, batch: Batch) -> Measured:
        images, labels = batch
        found = self.scores_of(images)
        wanted = torch.tensor(self.trainer.datamodule.normal_labels, device=labels.device)
        normal = torch.isin(labels, wanted)
        loss = self.beta * found["kl"] + found["elbo"] - found["kl"]  # −E_q log p + β KL

        def of_normal(value: Tensor) -> Ratio:
            value, own = value.to(normal.device), normal.view(-1, *[1] * (value.ndim - 1))
            return Ratio(value * own, normal)

        values = {
            "loss": of_normal(loss),
            "nats_per_image": of_normal(found["elbo"]),
            "iwae": of_normal(found["iwae"]),
            "reconstruction": of_normal(found["elbo"] - found["kl"]),
            "kl": of_normal(found["kl"]),
            "psnr": of_normal(found["psnr"]),
            "ssim": of_normal(1 - found["ssim"]),
            "kl_per_latent": of_normal(found["kl_per_latent"]),
        }
        grey = images.double().flatten(1) / (self.network.spec.levels - 1)
        rows = {"label": labels, "anomalous": ~normal, "mean": found["mean"], "psnr": found["psnr"]}
        rows |= {"brightness": grey.mean(1), "contrast": grey.std(1, correction=0)}
        rows |= {f"score_{name}": found[name] for name in SCORES if name in found}
        without = self.baselines.scores(images.cpu().numpy())
        rows |= {f"baseline_{name}": torch.from_numpy(value) for name, value in without.items()}
        return Measured(loss.mean(), values, rows)

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        if split != "test":
            return {}
        kept = {name: value.numpy() for name, value in rows.items()}
        anomalous, found = kept["anomalous"], {"normal_names": np.array(self.trainer.datamodule.normal_names)}
        if hasattr(self.likelihood, "sigma"):
            found["sigma"] = self.likelihood.sigma.item()
        if self.likelihood.discrete:
            found["bits_per_dim"] = means["iwae"] / (self.network.spec.dims * math.log(2))
        if not anomalous.all():
            found["active_units"] = int((kept["mean"][~anomalous].var(0) > ACTIVE).sum())
        found["threshold"] = threshold = self.find_threshold()
        if anomalous.any():
            found["psnr_anomalies"] = kept["psnr"][anomalous].mean()
        if anomalous.all() or not anomalous.any():
            what = "normal image" if anomalous.all() else "anomaly"
            log.warning("test: there is no %s among the test images: areas under curves are left out.", what)
            return found
        chosen = kept[f"score_{self.score}"]
        for name, scores in kept.items():
            kind, _, own = name.partition("_")
            if kind in ("score", "baseline"):
                found[f"auc_roc_{own}"] = areas(anomalous, scores)["auc_roc"]
        found |= areas(anomalous, chosen) | at_threshold(anomalous, chosen, threshold)
        for name in ("brightness", "contrast"):
            found[f"correlation_{name}"] = correlation(chosen, kept[name])
        within = auc_within(anomalous, chosen, kept["contrast"])
        return found if math.isnan(within) else found | {"auc_within_contrast": within}

    def find_threshold(self) -> float:
        """Of the score that decides, from validation images."""
        data = self.trainer.datamodule
        normal = self.own_scores(data.splits["val"].images, data.eval_batch_size)
        if self.threshold == "quantile":
            return quantile_threshold(normal, self.quantile)
        return youden_threshold(normal, self.own_scores(data.splits["val_anomalies"].images, data.eval_batch_size))

    def own_scores(self, images: np.ndarray, size: int) -> np.ndarray:
        """The score that decides of images (N, C, H, W), (N,)."""
        found = [self.scores_of(batch)[self.score] for batch in in_batches(images, size, self.device)]
        return torch.cat(found).cpu().numpy()

    # What is shown

    def stage_explore(self, run: Any) -> None:
        """Traversals of latents, ways between two images, samples from the prior; leaves `explore.npz`."""
        explore(self.network, self.likelihood, self.latents_of(run.datamodule), run, self.seed)

    def stage_map(self, run: Any) -> None:
        """Where in the held-out picture the errors are, and what that tells; leaves `map.npz`."""
        map_errors(self.network, self.likelihood, self.device, run)

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """Areas of every score in every run and their means, published ones beside them; rate and distortion."""
        return comparison_sections(runs, folder)

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows."""
        return report_sections(self.network, self.likelihood, run)
