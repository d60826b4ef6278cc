"""The task: three labels of an image from one network, mistakes weighted by their severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from datamodules.errors import UsageError
from datamodules.hierarchy import LEVELS
from lightning_modules.base import MakeOptimizer, MakeScheduler, Task, split_means
from lightning_modules.multitask.cnn import MultitaskCNN
from lightning_modules.multitask.report import report_sections
from lightning_modules.multitask.severity import severity_matrices, weighted_cross_entropy
from reporting.report import Section

Batch = tuple[Tensor, Tensor]


class Multitask(Task):
    """The sum of three cross-entropies: of fine classes, superclasses and groups.

    Logs, for train, val and test: `loss` (that sum without severity weights, so that runs compare, in nats),
    `fine_accuracy`, `super_accuracy` and `group_accuracy` of the three heads, and `mistake_severity`, the mean over the
    fine head's mistakes of 1 (within the superclass), 2 (within the group) or 3 (across groups); 0 without a mistake.
    The training figures are means over what was trained on since the last validation, as the sampler drew it.

    Args:
        network: images → the three heads' logits.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        severity: what an image counts in the training loss when it is taken for another class within its superclass,
            within its group, across groups; one taken for what it is counts 1. None: all count alike.

    Raises:
        UsageError: the severities are not three growing numbers of 1 or more.
    """

    def __init__(
        self,
        network: MultitaskCNN,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        severity: Sequence[float] | None = (1.0, 2.0, 3.0),
    ):
        super().__init__(network, optimizer, scheduler)
        if severity is not None and (len(severity) != 3 or list(severity) != sorted(severity) or severity[0] < 1):
            raise UsageError(
                f"task.module.severity is {list(severity)}, but it must be three growing numbers of 1 or more, such as "
                "[1,2,3]: within the superclass, within the group, across groups; or null."
            )
        self.weighted = severity is not None
        self.register_buffer("weights", torch.tensor([1.0, *(severity or (1.0,) * 3)]), persistent=False)
        coarser = network.spec.supers, network.spec.groups
        for level, matrix in zip(LEVELS, severity_matrices(*coarser), strict=True):
            self.register_buffer(f"{level}_severities", matrix, persistent=False)
        self.register_buffer("coarser", torch.tensor(coarser), persistent=False)
        self.losses, self.severities = split_means(), split_means()
        self.accuracies = nn.ModuleDict()
        for split in ("train", "val", "test"):
            for level in LEVELS:
                classes = len(getattr(self, f"{level}_severities"))
                self.accuracies[f"{split}_{level}"] = MulticlassAccuracy(classes, average="micro")
                self.accuracies[f"{split}_{level}"].persistent(True)  # an epoch resumed midway goes on
        self.tested: list[dict[str, np.ndarray]] = []

    def _labels(self, fine: Tensor) -> list[Tensor]:
        return [fine, *self.coarser[:, fine]]

    def _logits(self, images: Tensor) -> list[Tensor]:
        return [logits.float() for logits in self.network(images)]

    def _update(self, logits: list[Tensor], labels: list[Tensor], split: str) -> None:
        """Counts a batch in the split's figures."""
        logits = [head.detach() for head in logits]
        losses = [F.cross_entropy(*pair, reduction="none") for pair in zip(logits, labels, strict=True)]
        self.losses[f"{split}_mean"].update(sum(losses))
        for level, head, own in zip(LEVELS, logits, labels, strict=True):
            self.accuracies[f"{split}_{level}"].update(head, own)
        found = self.fine_severities[labels[0], logits[0].argmax(1)]
        if (found > 0).any():
            self.severities[f"{split}_mean"].update(found[found > 0].float())

    def _log_split(self, split: str) -> None:
        figures = {"loss": self.losses[f"{split}_mean"], "mistake_severity": self.severities[f"{split}_mean"]}
        figures |= {f"{level}_accuracy": self.accuracies[f"{split}_{level}"] for level in LEVELS}
        for name, metric in figures.items():
            self.log(f"{split}/{name}", metric.compute() if metric.update_called else 0.0, prog_bar="group" in name)
            metric.reset()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        logits, labels = self._logits(batch[0]), self._labels(batch[1])
        self._update(logits, labels, "train")
        weights = self.weights if self.weighted else None
        matrices = [getattr(self, f"{level}_severities") for level in LEVELS]
        heads = zip(logits, labels, matrices, strict=True)
        loss = sum(weighted_cross_entropy(*head, weights) for head in heads)
        self.log("train/loss_step", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        self._update(self._logits(batch[0]), self._labels(batch[1]), "val")

    def on_validation_epoch_end(self) -> None:
        if self.losses["train_mean"].update_called:
            self._log_split("train")
        self._log_split("val")

    def on_test_epoch_start(self) -> None:
        self.tested = []

    def test_step(self, batch: Batch, number: int) -> None:
        logits, labels = self._logits(batch[0]), self._labels(batch[1])
        self._update(logits, labels, "test")
        rows = {f"{level}_label": own for level, own in zip(LEVELS, labels, strict=True)}
        rows |= {f"{level}_probabilities": head.softmax(1) for level, head in zip(LEVELS, logits, strict=True)}
        rows["severity"] = self.fine_severities[labels[0], logits[0].argmax(1)]
        self.tested.append({name: value.cpu().numpy() for name, value in rows.items()})

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def predictions(self) -> dict[str, np.ndarray]:
        """For each image tested, in order: its three labels, each head's probabilities, and the severity (0 … 3) of
        what the fine head takes it for."""
        return {name: np.concatenate([batch[name] for batch in self.tested]) for name in self.tested[0]}

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each test image whether each head is right, and the severity of the fine head's mistake, 0 for none."""
        found = {
            f"{level}_accuracy": predictions[f"{level}_probabilities"].argmax(1) == predictions[f"{level}_label"]
            for level in LEVELS
        }
        return {name: right.astype(np.float64) for name, right in found.items()} | {
            "severity": predictions["severity"].astype(np.float64)
        }

    def report(self, run: Any) -> list[Section]:
        return report_sections(run)
