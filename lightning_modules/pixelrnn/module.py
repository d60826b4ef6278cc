"""The task: likelihood training, its metrics, samples, and what its report shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_modules.pixelrnn.sampling import check_draw, sample
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork, image_nats
from reporting.figures import image_grid, save_grids
from reporting.report import Section

Batch = tuple[Tensor, Tensor]


class PixelRNN(L.LightningModule):
    """Negative log-likelihood of images under an autoregressive network.

    Logs, for train, val and test: `loss` (nats per sub-pixel), `bits_per_dim` and `nats_per_image`. The training
    figures are means over what was trained on since the last validation, dropout and all.

    Args:
        network: one of this package's networks.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        samples: images drawn by the stage `sample`.
        temperature: at which they are drawn.
        seed: of the draws, apart from the training's random numbers.
    """

    def __init__(
        self,
        network: AutoregressiveNetwork,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        samples: int = 64,
        temperature: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        check_draw(samples, temperature)
        self.network, self.make_optimizer, self.make_scheduler = network, optimizer, scheduler
        self.samples, self.temperature, self.seed = samples, temperature, seed
        # Double sums: float32 would round the sum over 10,000 images. Kept in checkpoints, so that a run resumed
        # in the middle of an epoch still averages all of it.
        self.nats = nn.ModuleDict({f"{split}_mean": MeanMetric() for split in ("train", "val", "test")})
        for metric in self.nats.values():
            metric.set_dtype(torch.float64)
            metric.persistent(True)
        self.test_nats: list[np.ndarray] = []
        self.test_labels: list[np.ndarray] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def _nats(self, batch: Batch, split: str) -> Tensor:
        """Nats of each image of a batch (B,), counted in the split's mean."""
        nats = image_nats(self.network(batch[0]), batch[0])
        self.nats[f"{split}_mean"].update(nats.detach())
        return nats

    def _log_split(self, split: str) -> None:
        metric = self.nats[f"{split}_mean"]
        nats, dims = metric.compute(), self.network.spec.dims
        metric.reset()
        self.log(f"{split}/bits_per_dim", nats / (dims * math.log(2)), prog_bar=True)
        self.log(f"{split}/nats_per_image", nats)
        self.log(f"{split}/loss", nats / dims)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        loss = self._nats(batch, "train").mean() / self.network.spec.dims
        self.log("train/bits_per_dim_step", loss.detach() / math.log(2), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        self._nats(batch, "val")

    def on_validation_epoch_end(self) -> None:
        if self.nats["train_mean"].update_called:
            self._log_split("train")
        self._log_split("val")

    def test_step(self, batch: Batch, number: int) -> None:
        self.test_nats.append(self._nats(batch, "test").float().cpu().numpy())
        self.test_labels.append(batch[1].cpu().numpy())

    def on_test_epoch_start(self) -> None:
        self.test_nats, self.test_labels = [], []

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def predictions(self) -> dict[str, np.ndarray]:
        """For each image tested, in order: its label and its nats."""
        return {"label": np.concatenate(self.test_labels), "nats": np.concatenate(self.test_nats)}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.make_optimizer(self.parameters())
        scheduler = self.make_scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def stage_sample(self, run: Any) -> None:
        """Draws images; leaves `samples.npy` and a picture of them beside as many test images."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        drawn = sample(self.network, self.samples, temperature=self.temperature, generator=generator).cpu().numpy()
        np.save(run.folder / "samples.npy", drawn)
        real = run.datamodule.splits["test"].images[: self.samples]
        levels = self.network.spec.levels
        grids = {f"drawn, temperature {self.temperature:g}": drawn, "real (test images)": np.asarray(real)}
        save_grids(run.folder / "figures" / "samples.png", grids, levels)
        for logger in run.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", image_grid(drawn, levels), dataformats="HWC")

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows beyond its figures and curves."""
        uniform = math.log2(self.network.spec.levels)
        found = run.metrics.get("test/bits_per_dim")
        against = f"A uniform guess over {self.network.spec.levels} levels costs {uniform:.2f} bits/dim"
        sections = [Section("Likelihood", against + (f"; this network {found:.4f} on test images." if found else "."))]
        if (run.folder / "figures" / "samples.png").exists():
            sections.append(Section("Samples", "Drawn by the network, beside real images.", "figures/samples.png"))
        return sections
