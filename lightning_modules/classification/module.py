"""The task: cross-entropy training of a classifier, its accuracy, and its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from datamodules.errors import UsageError
from lightning_modules.base import ComparedRun, MakeOptimizer, MakeScheduler, Task, split_means
from lightning_modules.classification.analysis import BINS
from lightning_modules.classification.comparison import comparison_sections
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.report import report_sections
from lightning_modules.classification.views import view_logits
from reporting.report import Section

Batch = tuple[Tensor, Tensor]


class Classification(Task):
    """Cross-entropy over classes.

    Logs, for train, val and test: `loss` (cross-entropy in nats, without label smoothing, so that the splits compare)
    and `accuracy`; of test also `precision_macro`, `recall_macro`, `f1_macro`, `calibration_error`, and with test-time
    augmentation `accuracy_tta`. The training figures are means over what was
    trained on since the last validation, augmentation and dropout and all.

    Args:
        network: images → logits.
        optimizer: parameters → optimizer; its weight decay is kept from biases and normalisation.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        label_smoothing: share of the target spread over all classes in training.
        initialisation: `default`, PyTorch's; or `whitened`: the network's `whiten_`.
        norm_bias_lr: learning rate of the normalisations' biases, in multiples of the others'.
        early_size: height and width that images are scaled to in the first part of training, which is faster.
        early_part: that part, a fraction of all steps, or of a budget's time; 0: none.
        tta: test also with test-time augmentation: see `views.py`.
        shown_images: numbers of test images that the report shows inside the network.

    Raises:
        UsageError: a number is impossible.
    """

    def __init__(
        self,
        network: Classifier,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        label_smoothing: float = 0.0,
        initialisation: str = "default",
        norm_bias_lr: float = 1.0,
        early_size: int = 24,
        early_part: float = 0.0,
        tta: bool = False,
        shown_images: Sequence[int] = (0, 1, 2, 3),
    ):
        super().__init__(network, optimizer, scheduler)
        for name, value in {"label_smoothing": label_smoothing, "early_part": early_part}.items():
            if not 0 <= value < 1:
                raise UsageError(f"task.module.{name} is {value}, but it must be from 0 up to, not including, 1.")
        if not norm_bias_lr >= 0:
            raise UsageError(f"task.module.norm_bias_lr is {norm_bias_lr}, but it must be 0 or more.")
        if early_size > 4096:
            raise UsageError(f"task.module.early_size is {early_size}, but it must be 4096 or less.")
        if initialisation not in ("default", "whitened"):
            raise UsageError(f"task.module.initialisation is {initialisation}: choose default or whitened.")
        if initialisation == "whitened" and not hasattr(network, "whiten_"):
            raise UsageError(
                "task.module.initialisation=whitened makes filters of a first convolution, which this network has not: "
                "choose default."
            )
        if early_part and not network.takes(early_size, early_size):
            raise UsageError(
                f"task.module.early_size is {early_size}, but the network takes images of {network.sizes}."
            )
        self.label_smoothing, self.initialisation, self.norm_bias_lr = label_smoothing, initialisation, norm_bias_lr
        self.early_size, self.early_part, self.tta = early_size, early_part, tta
        self.shown_images = list(shown_images)
        self.losses = split_means()
        self.accuracies = nn.ModuleDict()
        for name in ("train_accuracy", "val_accuracy", "test_accuracy", "test_accuracy_tta"):
            self.accuracies[name] = MulticlassAccuracy(network.spec.classes, average="micro")
            self.accuracies[name].persistent(True)  # an epoch resumed midway goes on
        classes = {"num_classes": network.spec.classes}
        self.test_figures = MetricCollection(
            {
                "test/precision_macro": MulticlassPrecision(**classes),
                "test/recall_macro": MulticlassRecall(**classes),
                "test/f1_macro": MulticlassF1Score(**classes),
                "test/calibration_error": MulticlassCalibrationError(**classes, n_bins=BINS),
            }
        )
        self.tested: list[dict[str, np.ndarray]] = []

    def setup(self, stage: str) -> None:
        """Weights made from the training images; a checkpoint that is gone on from replaces them."""
        if stage == "fit" and self.initialisation == "whitened":
            images = self.trainer.datamodule.splits["train"].images[:1000]
            self.network.whiten_(torch.from_numpy(np.array(images)))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels; the vectors, which weight decay would only hold back; the normalisations' biases."""
        norms = [module for module in self.network.modules() if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))]
        norm_biases = [norm.bias for norm in norms]
        biases = {id(bias) for bias in norm_biases}
        others = [p for p in self.network.parameters() if id(p) not in biases]
        kernels, vectors = [p for p in others if p.ndim > 1], [p for p in others if p.ndim == 1]
        return [
            {"params": kernels},
            {"params": vectors, "weight_decay": 0.0},
            {"params": norm_biases, "weight_decay": 0.0},
        ]

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.make_optimizer(self.parameter_groups())
        optimizer.param_groups[2]["lr"] *= self.norm_bias_lr
        return self.scheduled(optimizer)

    def _update(self, logits: Tensor, labels: Tensor, split: str) -> None:
        """Counts a batch in the split's figures."""
        self.losses[f"{split}_mean"].update(F.cross_entropy(logits.detach(), labels, reduction="none"))
        self.accuracies[f"{split}_accuracy"].update(logits.detach(), labels)

    def _log_split(self, split: str) -> None:
        figures = {f"{split}/loss": self.losses[f"{split}_mean"]}
        figures |= {f"{split}/accuracy": self.accuracies[f"{split}_accuracy"]}
        if split == "test" and self.tta:
            figures["test/accuracy_tta"] = self.accuracies["test_accuracy_tta"]
        for name, metric in figures.items():
            self.log(name, metric.compute(), prog_bar=True)
            metric.reset()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        images, labels = batch
        if self.early_part and self.part_done < self.early_part:
            images = F.interpolate(images.float(), (self.early_size,) * 2, mode="bilinear", antialias=True)
        logits = self.network(images).float()
        self._update(logits, labels, "train")
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.log("train/loss_step", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        self._update(self.network(batch[0]).float(), batch[1], "val")

    def on_validation_epoch_end(self) -> None:
        if self.losses["train_mean"].update_called:
            self._log_split("train")
        self._log_split("val")

    def on_test_epoch_start(self) -> None:
        self.tested = []

    def test_step(self, batch: Batch, number: int) -> None:
        images, labels = batch
        logits = self.network(images).float()
        self._update(logits, labels, "test")
        rows = {"label": labels, "probabilities": logits.softmax(1)}
        self.test_figures.update(rows["probabilities"], labels)
        if self.tta:
            averaged = view_logits(self.network, images)
            self.accuracies["test_accuracy_tta"].update(averaged, labels)
            rows["probabilities_tta"] = averaged.softmax(1)
        self.tested.append({name: value.cpu().numpy() for name, value in rows.items()})

    def on_test_epoch_end(self) -> None:
        self._log_split("test")
        self.log_dict(self.test_figures.compute())
        self.test_figures.reset()

    def predictions(self) -> dict[str, np.ndarray]:
        """For each image tested, in order: its label, and the probability of each class (N, classes); and the classes'
        names."""
        rows = {name: np.concatenate([batch[name] for batch in self.tested]) for name in self.tested[0]}
        return {**self.in_order(rows), "class_names": np.array(self.trainer.datamodule.class_names)}

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each test image whether the class is right, and its cross-entropy; of averaged views too, where kept."""
        label, found = predictions["label"], {}
        for name, kept in predictions.items():
            if name.startswith("probabilities"):
                suffix = name.removeprefix("probabilities")
                chosen = np.take_along_axis(kept, label[:, None], 1)[:, 0].astype(np.float64)
                found[f"accuracy{suffix}"] = (kept.argmax(1) == label).astype(np.float64)
                found[f"loss{suffix}"] = -np.log(np.maximum(chosen, np.finfo(np.float32).tiny))
        return found

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """F1 of each class, the confusion matrices, and their differences."""
        return comparison_sections(runs, folder)

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows.

        Raises:
            UsageError: an image to be shown is not in the test split.
        """
        there = len(run.datamodule.splits["test"].images)
        for number in self.shown_images:
            if not 0 <= number < there:
                raise UsageError(
                    f"task.module.shown_images names {number}, but the test images are numbered 0 to {there - 1}."
                )
        return report_sections(self.network, run, self.shown_images)
