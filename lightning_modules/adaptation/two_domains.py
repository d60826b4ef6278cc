"""What every model of the task shares: a classifier tested on both domains, judged without the target's labels."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.domains.pairs import PairBatch, PairDataModule, Unlabelled
from datamodules.errors import UsageError
from lightning_modules.adaptation.bounds import KEPT, measure_bounds
from lightning_modules.adaptation.criteria import unlabelled_criteria
from lightning_modules.adaptation.distances import proxy_a_distance
from lightning_modules.adaptation.network import SOURCE, TARGET, DigitNetwork
from lightning_modules.adaptation.predicting import outputs, predicted
from lightning_modules.adaptation.report import report_sections
from lightning_modules.adaptation.selection import selection_sections
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Task
from reporting.load import read_checkpoint
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)

COMPARED = 1000  # test images of each domain whose features are told apart


class TwoDomains(Task):
    """A subclass says what a training batch comes to (`measure_training`) and which network classifies (`classifier`).

    Logs of the target, without its labels, `val/entropy`, `val/information_maximisation`, `val/bnm` and
    `val/class_ami`; of the source `val/loss_source` and `val/accuracy_source`; of the test `test/loss` and
    `test/accuracy` of the target, both also with `_source`, and `test/proxy_a_distance`.

    Args:
        network: what is trained.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        oracle: look at the target's validation labels too: `val/accuracy_oracle`, and `test/accuracy_oracle` of the
            epoch that was best by them. Neither is attainable without labels; nothing else depends on them.
        embedded_items: test images of each domain in the report's picture of the features, at most 500; 0: no picture.

    Raises:
        UsageError: `embedded_items` is out of these limits.
    """

    bar = ("loss", "accuracy_source", "domain_accuracy")

    def __init__(
        self,
        network: Any,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        oracle: bool = False,
        embedded_items: int = 500,
    ):
        super().__init__(network, optimizer, scheduler)
        if embedded_items and not 4 <= embedded_items <= KEPT:
            raise UsageError(f"task.module.embedded_items is {embedded_items}, but it must be 0 or from 4 to {KEPT}.")
        self.oracle, self.oracle_best, self.embedded_items = oracle, -1.0, embedded_items

    @abstractmethod
    def measure_training(self, batch: PairBatch) -> Measured:
        """What a training batch comes to."""

    @property
    def classifier(self) -> DigitNetwork:
        """The network that is tested."""
        return self.network

    @property
    def data(self) -> PairDataModule:
        return self.trainer.datamodule

    def check_stages(self, run: Any) -> None:
        if not isinstance(run.datamodule, PairDataModule):
            raise UsageError(
                f"An adaptation needs two domains, and data={run.config.choices.data} is one: choose data=digits_m, "
                "data=mnist_m or data=pair."
            )
        if "translate" in run.config.stages and not hasattr(self, "stage_translate"):
            raise UsageError(
                "The stage translate needs a network that translates: choose model=cyclegan or model=cycada."
            )
        if "fit" not in run.config.stages:
            return
        if self.classifier.norm != "none" and run.datamodule.batch_size == 1:
            raise UsageError(
                f"model.norm={self.classifier.norm} normalises over a batch, and data.batch_size is 1: choose 2 or "
                "more, or model.norm=none."
            )
        if str(run.config.trainer.precision).startswith("16") and run.trainer.strategy.root_device.type == "cpu":
            raise UsageError("trainer.precision=16-mixed needs a GPU: choose auto, bf16-mixed or 32-true.")

    # Figures

    def measure(self, batch: Any, split: str) -> Measured:
        if split == "train":
            return self.measure_training(batch)
        if isinstance(batch, Unlabelled):
            return self.measure_unlabelled(batch)
        images, labels = batch
        logits = self.classifier(images, SOURCE if split.endswith("_source") else TARGET).float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        rows = {"label": labels, "probabilities": logits.softmax(1)} if split.startswith("test") else {}
        return Measured(losses.mean(), {"loss": losses, "accuracy": logits.argmax(1) == labels}, rows)

    def measure_unlabelled(self, batch: Unlabelled) -> Measured:
        hidden = self.classifier.hidden(self.classifier.features(batch.images, TARGET))
        logits = self.classifier.label3(hidden).float()
        values = {}
        if self.oracle:
            labels = torch.from_numpy(np.array(self.data.target_labels("val", peeking=True)))
            values["accuracy_oracle"] = logits.argmax(1) == labels.to(logits.device)[batch.rows]
        return Measured(logits.sum() * 0, values, {"probabilities": logits.softmax(1), "hidden": hidden.float()})

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        if split == "val":
            return unlabelled_criteria(*(rows[name].numpy() for name in ("probabilities", "hidden")))
        if split == "test":
            found = {"class_names": np.array(self.data.class_names), **self.domain_figures()}
            return {**found, **self.oracle_figures()}
        return {}

    def domain_figures(self) -> dict[str, float]:
        """How well the domains are told apart by the features of test images."""
        features = self.test_features()
        return {"proxy_a_distance": proxy_a_distance(*features)} if min(map(len, features)) > 3 else {}

    def test_features(self) -> list[np.ndarray]:
        """The classifier's features (N, D) of the first test images of source and target."""
        return [
            outputs(self.classifier.features, self.data.splits[f"{name}_test"].images[:COMPARED], domain, self.device)
            for name, domain in (("source", SOURCE), ("target", TARGET))
        ]

    # Peeking, when asked to

    def on_validated(self, found: Mapping[str, float]) -> None:
        if self.oracle and found["val/accuracy_oracle"] > self.oracle_best:
            self.oracle_best = found["val/accuracy_oracle"]
            self.trainer.save_checkpoint(self.oracle_path)

    @property
    def oracle_path(self) -> Path:
        return Path(self.trainer.default_root_dir) / "checkpoints" / "oracle.ckpt"

    def oracle_figures(self) -> dict[str, float]:
        """The target's test accuracy with the weights that its validation labels liked best."""
        if not self.oracle or not self.oracle_path.is_file():
            return {}
        peeked = copy.deepcopy(self)
        peeked.load_state_dict(read_checkpoint(self.oracle_path)["state_dict"])
        images, labels = self.data.splits["target_test"]
        return {"accuracy_oracle": (predicted(peeked.classifier, images, TARGET, self.device) == labels).mean()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["oracle_best"] = self.oracle_best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.oracle_best = checkpoint.get("oracle_best", -1.0)

    # Stages and pages

    def stage_bounds(self, run: Any) -> None:
        """The same network trained for as many steps on the source alone, and on the target's labels: two ends."""
        measure_bounds(self.classifier, run)

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each target test image whether its class is right, and its cross-entropy."""
        label, p = predictions["label"], predictions["probabilities"]
        chosen = np.take_along_axis(p, label[:, None], 1)[:, 0].astype(np.float64)
        right = (p.argmax(1) == label).astype(np.float64)
        return {"accuracy": right, "loss": -np.log(np.maximum(chosen, np.finfo(np.float32).tiny))}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """Of five runs or more how well each criterion without labels would have chosen among them."""
        return selection_sections(runs, folder)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self.classifier, run, self.embedded_items)
