"""The task: likelihood training and its metrics, samples and completions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.base import MakeOptimizer, MakeScheduler, Task, split_means
from lightning_modules.pixelrnn.codec import compression_figures
from lightning_modules.pixelrnn.figures import save_completions
from lightning_modules.pixelrnn.report import report_sections, snapshots_in
from lightning_modules.pixelrnn.sampling import check_temperature, complete, sample
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork
from reporting.figures import image_grid, save_grids
from reporting.report import Section

MOST = 1_000_000  # images of any kind
Batch = tuple[Tensor, Tensor]


class PixelRNN(Task):
    """Negative log-likelihood of images under an autoregressive network.

    Logs, for train, val and test: `loss` (nats per sub-pixel), `bits_per_dim` and `nats_per_image`. The training
    figures are means over what was trained on since the last validation, dropout and all.

    Args:
        network: one of this package's networks.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        samples: images drawn by the stage `sample`.
        completions: test images whose lower half is drawn by the stage `complete`.
        draws: completions of each.
        compressed: test images that the stage `compress` writes to one file.
        snapshots: images drawn while training, whenever the steps trained have doubled; 0: none.
        temperature: of all draws.
        label: the class to draw, for a conditional network; None: all of them in turn.
        seed: of the draws, apart from the training's random numbers.

    Raises:
        UsageError: a number, the temperature or the label is impossible.
    """

    def __init__(
        self,
        network: AutoregressiveNetwork,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        samples: int = 64,
        completions: int = 8,
        draws: int = 3,
        snapshots: int = 16,
        compressed: int = 256,
        temperature: float = 1.0,
        label: int | None = None,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        check_temperature(temperature)
        for name, value, least in [("samples", samples, 1), ("completions", completions, 1), ("draws", draws, 1),
                                   ("snapshots", snapshots, 0), ("compressed", compressed, 1)]:  # fmt: skip
            if not least <= value <= MOST:
                raise UsageError(f"task.module.{name} is {value}, but it must be from {least} to {MOST}.")
        if label is not None and not network.class_biases:
            raise UsageError(f"task.module.label={label} needs a network trained with model.conditional=true.")
        if label is not None and not 0 <= label < network.spec.classes:
            raise UsageError(f"task.module.label is {label}, but the classes are 0 to {network.spec.classes - 1}.")
        self.samples, self.completions, self.draws, self.snapshots = samples, completions, draws, snapshots
        self.compressed, self.temperature, self.label, self.seed = compressed, temperature, label, seed
        self.nats = split_means()
        self.tested: list[dict[str, np.ndarray]] = []

    def _nats(self, batch: Batch, split: str) -> Tensor:
        """Nats of each sub-pixel of a batch (B, C, H, W); each image's counted in the split's mean."""
        nats = self.network.nats(*batch)
        self.nats[f"{split}_mean"].update(nats.detach().flatten(1).sum(1))
        return nats

    def _log_split(self, split: str) -> None:
        metric = self.nats[f"{split}_mean"]
        nats, dims = metric.compute(), self.network.spec.dims
        metric.reset()
        self.log(f"{split}/bits_per_dim", nats / (dims * math.log(2)), prog_bar=True)
        self.log(f"{split}/nats_per_image", nats)
        self.log(f"{split}/loss", nats / dims)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        loss = self._nats(batch, "train").mean()
        self.log("train/bits_per_dim_step", loss.detach() / math.log(2), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        self._nats(batch, "val")

    def on_validation_epoch_end(self) -> None:
        if self.nats["train_mean"].update_called:
            self._log_split("train")
        finite = bool(self.nats["val_mean"].compute().isfinite())
        self._log_split("val")
        if finite:
            self._snapshot()

    def _snapshot(self) -> None:
        """Draws images if the steps trained have doubled since the last ones in the run's folder.

        Before the checkpoint of this validation is written: a run that goes on from it does not draw again.
        """
        folder, step = Path(self.trainer.default_root_dir) / "snapshots", self.trainer.global_step
        if not self.snapshots or not self.trainer.is_global_zero:
            return
        # Of a run that was killed before its checkpoint, later ones may be there: they are drawn again.
        if step < 2 * max((drawn_at for drawn_at in snapshots_in(folder) if drawn_at < step), default=0.5):
            return
        drawn = self._draw(self.snapshots)
        save_array(folder / f"step_{step:07d}.npy", drawn)
        self._show_on_board(self.trainer, drawn, step - 1)  # as Lightning numbers this validation's figures

    def test_step(self, batch: Batch, number: int) -> None:
        nats = self._nats(batch, "test").cpu().double()
        per_image, per_pixel = nats.flatten(1).sum(1), nats.sum((0, 1))
        self.tested.append({"label": batch[1].cpu().numpy(), "nats": per_image.numpy(), "sum": per_pixel.numpy()})

    def on_test_epoch_start(self) -> None:
        self.tested = []

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def predictions(self) -> dict[str, np.ndarray]:
        """For each image tested, in order: its label and its nats; and the mean nats of each pixel (H, W)."""
        rows = {name: np.concatenate([batch[name] for batch in self.tested]) for name in ("label", "nats")}
        rows = self.in_order(rows)
        sums = self.in_order({"pixel": sum(batch["sum"] for batch in self.tested)[None]})[
            "pixel"
        ]  # one of each process
        return {**rows, "pixel_nats": sums.sum(0) / len(rows["nats"])}

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each test image's nats."""
        return {"nats_per_image": predictions["nats"]}

    def _how(self, labels: Tensor | None) -> dict[str, Any]:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        return {"labels": labels, "temperature": self.temperature, "generator": generator}

    def _draw(self, count: int) -> np.ndarray:
        """Images drawn from noise; of a conditional network as many of each class, or all of `label`."""
        labels = None
        if self.network.class_biases:
            each = -(-count // self.network.spec.classes)
            labels = torch.arange(self.network.spec.classes, device=self.device).repeat_interleave(each)
            labels = labels if self.label is None else torch.full_like(labels[:count], self.label)
            count = len(labels)
        return sample(self.network, count, **self._how(labels)).cpu().numpy()

    def _show_on_board(self, trainer: L.Trainer, images: np.ndarray, step: int | None = None) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                grid = image_grid(images, self.network.spec.levels)
                logger.experiment.add_image("samples", grid, global_step=step, dataformats="HWC")

    def stage_sample(self, run: Any) -> None:
        """Draws images; leaves `samples.npy`, and their picture, beside as many test images where there is data."""
        drawn = self._draw(self.samples)
        save_array(run.folder / "samples.npy", drawn)
        spec = self.network.spec
        by_class = self.network.class_biases and self.label is None
        title = f"drawn, temperature {self.temperature:g}"
        title += f", a row a class: 0 to {spec.classes - 1}" if by_class else ""
        title += f", class {self.label}" if self.label is not None else ""
        columns = len(drawn) // spec.classes if by_class else None
        grids = {title: drawn}
        if run.datamodule.splits:
            grids["real (test images)"] = np.asarray(run.datamodule.splits["test"].images[: len(drawn)])
        save_grids(run.folder / "figures" / "samples.png", grids, spec.levels, columns)
        self._show_on_board(run.trainer, drawn)

    def stage_complete(self, run: Any) -> None:
        """Draws the lower halves of test images, several times each; leaves `completions.npy` and their picture."""
        images, labels = (part[: self.completions] for part in run.datamodule.splits["test"])
        first_row = self.network.spec.height // 2
        given = torch.from_numpy(np.array(images)).to(self.device).repeat_interleave(self.draws, 0)
        classes = torch.from_numpy(np.array(labels)).long().to(self.device).repeat_interleave(self.draws, 0)
        drawn = complete(self.network, given, first_row, **self._how(classes)).cpu().numpy()
        drawn = drawn.reshape(len(images), self.draws, *drawn.shape[1:])
        save_array(run.folder / "completions.npy", drawn)
        path = run.folder / "figures" / "completions.png"
        save_completions(path, np.asarray(images), drawn, first_row, self.network.spec.levels)

    def stage_compress(self, run: Any) -> None:
        """Writes test images to `compressed.bin`, reads them back, and compares sizes; see `codec.py`."""
        images, labels = (torch.from_numpy(np.array(part[: self.compressed])) for part in run.datamodule.splits["test"])
        run.metrics |= compression_figures(self.network, images, labels.long(), run.folder / "compressed.bin")

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows."""
        return report_sections(self.network, run)


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file, whole or not at all."""
    with whole_file(path) as unfinished:
        np.save(unfinished, array, allow_pickle=False)
