"""The task: a class for every pixel."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from datamodules.scenes.batches import SceneBatch
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from lightning_modules.segmentation.baselines import measure_baselines
from lightning_modules.segmentation.comparison import comparison_sections
from lightning_modules.segmentation.fast_scnn import ConvBN, FastSCNN, enlarged, parameter_groups
from lightning_modules.segmentation.report import report_sections
from lightning_modules.segmentation.scores import (
    WEIGHTS,
    boundary_counts,
    boundary_f1,
    class_weights,
    confusions,
    key,
    of_groups,
    scores,
    tolerance,
)
from lightning_modules.segmentation.speed import check_sizes, measure_speed
from lightning_modules.segmentation.studio import check_segment, segment_pictures
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)


class Segmentation(Task):
    """Cross-entropy of every labelled pixel, logits enlarged to the mask's size.

    Logs, for train and val, `loss` and `pixel_accuracy`; for val and test the figures of `scores` from one confusion
    matrix over all images, those of single classes for test alone; for test also `boundary_f1` and, where the data tell
    groups of images apart, `miou_<group>`.

    Args:
        network: a `FastSCNN`.
        optimizer: groups of parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        weights: what classes count in the loss, from training masks: none, median, sqrt_median or enet.
        aux_weight: what the loss of each of two auxiliary heads counts, on the map that goes round and on the global
            one; they exist in training alone and are none of the network's parameters.

    Raises:
        UsageError: a number or a name is impossible.
    """

    bar = ("loss", "pixel_accuracy", "miou")
    class_weights: Tensor

    def __init__(
        self,
        network: FastSCNN,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        weights: str = "none",
        aux_weight: float = 0.0,
    ):
        super().__init__(network, optimizer, scheduler)
        if weights not in WEIGHTS:
            near = did_you_mean(str(weights), WEIGHTS)
            raise UsageError(f"task.module.weights is {weights!r}{near}: choose one of {', '.join(WEIGHTS)}.")
        if not 0 <= aux_weight < float("inf"):
            raise UsageError(f"task.module.aux_weight is {aux_weight!r}, but it must be 0 or more.")
        self.weights, self.aux_weight = weights, aux_weight
        classes = network.spec.classes
        heads = [auxiliary_head(width, classes) for width in network.widths] if aux_weight else []
        self.auxiliary_heads = nn.ModuleList(heads)
        self.register_buffer("class_weights", torch.ones(classes))

    def configure_optimizers(self) -> dict[str, Any]:
        return self.scheduled(self.make_optimizer(parameter_groups(self)))

    def before_fit(self, run: Any) -> None:
        """The weights of classes; a checkpoint keeps them."""
        data = run.datamodule
        pixels, spec = data.pixels_of("train"), self.network.spec
        if not pixels.sum():
            raise UsageError("The training masks have no labelled pixel: look at data.masks, or at the void label.")
        sizes = np.full(len(pixels), data.splits["train"].masks[0].size)
        found = class_weights(pixels, sizes, self.weights)
        absent = [name for name, own in zip(spec.names, pixels.sum(0), strict=True) if not own]
        if absent and self.weights != "none":
            log.warning("No training mask has %s: task.module.weights counts it 0 times.", ", ".join(absent))
        self.class_weights.copy_(torch.from_numpy(found))

    def check_stages(self, run: Any) -> None:
        if "segment" in run.config.stages:
            check_segment(run)
        if "speed" in run.config.stages and run.config.sizes is not None:
            check_sizes(run.config.sizes)

    def measure(self, batch: SceneBatch, split: str) -> Measured:
        spec, masks = self.network.spec, batch.masks
        logits, high, low = self.network.parts(batch.images)
        logits = enlarged(logits, masks.shape[-2:]).float()
        above, below = self.pixel_losses(logits, masks)
        loss = mean_of(above, below)
        for head, maps in zip(self.auxiliary_heads if split == "train" else (), (high, low), strict=False):
            auxiliary = enlarged(head(maps), masks.shape[-2:]).float()
            loss = loss + self.aux_weight * mean_of(*self.pixel_losses(auxiliary, masks))
        predicted = logits.detach().argmax(1)
        valid = masks != spec.ignore
        hits = ((predicted == masks) & valid).sum((1, 2))
        values = {"loss": Ratio(above, below), "pixel_accuracy": Ratio(hits, valid.sum((1, 2)))}
        if split == "train":
            return Measured(loss, values)
        rows = {"confusion": confusions(predicted, masks, spec.classes, spec.ignore)}
        if split.startswith("test"):
            reach = tolerance(*masks.shape[-2:])
            rows["boundary"] = boundary_counts(predicted, masks, spec.classes, spec.ignore, reach)
        return Measured(loss, values, rows)

    def pixel_losses(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Of each image the sum of its labelled pixels' weighted losses, and of their weights: (B,) both.

        The gradient with respect to the logits of pixels without a label is 0.
        """
        valid = masks != self.network.spec.ignore
        known = masks.where(valid, 0)
        weights = self.class_weights[known] * valid
        losses = F.cross_entropy(logits, known, reduction="none")
        return (losses * weights).sum((1, 2)), weights.sum((1, 2))

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        if "confusion" not in rows:
            return {}
        spec, confusion = self.network.spec, rows["confusion"].numpy()
        found: dict[str, Any] = scores(confusion.sum(0), spec.names, spec.background)
        if "boundary" not in rows:  # of a validation no class alone, which would crowd its line
            return {name: value for name, value in found.items() if not name.startswith("iou_")}
        each = boundary_f1(rows["boundary"].numpy().sum(0))
        if np.isfinite(each).any():
            found["boundary_f1"] = float(np.nanmean(each))
        found |= {f"boundary_f1_{key(n)}": float(v) for n, v in zip(spec.names, each, strict=True) if np.isfinite(v)}
        parts = getattr(self.trainer.datamodule, "parts", None)
        return found | (of_groups(confusion, parts("test")) if parts and len(confusion) == self.items() else {})

    def items(self) -> int:
        """How many images the test has; fewer are looked at where batches are limited."""
        return len(self.trainer.datamodule.splits["test"].images)

    # Stages

    def stage_baselines(self, run: Any) -> None:
        """What no network needs to be trained for; leaves `baselines.json`."""
        run.metrics |= measure_baselines(run.datamodule, run.folder)

    def stage_speed(self, run: Any) -> None:
        """Frames a second, one at a time; leaves `speed.json`."""
        run.metrics |= measure_speed(self.network, run)

    def stage_segment(self, run: Any) -> None:
        """A folder of pictures → coloured masks and overlays."""
        segment_pictures(self.network, self.device, run)

    # What is shown

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The share of each image's labelled pixels that is right, 0 where there are none."""
        confusion = predictions["confusion"]
        right = np.trace(confusion, axis1=1, axis2=2)
        return {"pixel_accuracy": right / np.maximum(1, confusion.sum((1, 2)))}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """Mean IoU against the time of one image, where speeds were measured."""
        return comparison_sections(runs, folder)

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows."""
        return report_sections(self.network, self.device, run)


def auxiliary_head(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(ConvBN(width, width // 2, 3), nn.Dropout(0.1), nn.Conv2d(width // 2, classes, 1))


def mean_of(above: Tensor, below: Tensor) -> Tensor:
    """Over a batch's labelled pixels; 0, not NaN, without any."""
    total = below.sum()
    return above.sum() / total.where(total > 0, 1)
