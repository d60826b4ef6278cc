"""What every task's LightningModule shares, and what the framework asks of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from reporting.report import Section

MakeOptimizer = Callable[..., torch.optim.Optimizer]
MakeScheduler = Callable[..., LRScheduler]
TICKS = 10_000  # steps of a schedule that is laid over a budget of time


class ComparedRun(NamedTuple):
    """A finished run beside others: a short name, its configuration, final figures and predictions."""

    name: str
    folder: Path
    config: DictConfig
    metrics: dict[str, float]
    predictions: dict[str, np.ndarray]


class Task(L.LightningModule):
    """A network, how it is optimised, and what a run of it leaves behind.

    A task implements Lightning's steps, `predictions`, `report`, and for each stage of its own that
    `conf/task/<task>.yaml` lists a method `stage_<name>(run)`. It logs `{train,val,test}/{loss, …}`.

    Args:
        network: a plain module, made from the data's spec.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
    """

    def __init__(self, network: nn.Module, optimizer: MakeOptimizer, scheduler: MakeScheduler):
        super().__init__()
        self.network, self.make_optimizer, self.make_scheduler = network, optimizer, scheduler
        self.spent: float | None = None  # the part of the run's budget of time that is spent; None: it has none

    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.scheduled(self.make_optimizer(self.parameters()))

    def scheduled(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer and its schedule over the whole training, as Lightning wants them."""
        steps = TICKS if self.spent is not None else int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any = None) -> None:
        """One step of the schedule after each of training's; under a budget as many as the time spent asks for."""
        if self.spent is None:
            scheduler.step()
            return
        while scheduler.last_epoch < min(int(self.spent * TICKS), TICKS - 1):
            scheduler.step()

    @property
    def part_done(self) -> float:
        """The part of the training that is done: of its time under a budget, else of its steps."""
        return self.global_step / self.trainer.estimated_stepping_batches if self.spent is None else self.spent

    def on_step_skipped(self) -> None:
        """A step whose loss or gradient was not finite has just been left out (`nonfinite=skip`)."""

    def in_order(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows (n, …) of this process's items → those of all processes, in the split's order.

        Every process must call it. Of `world` processes each has every world-th item, as the loaders deal them.
        """
        parts = gathered(dict(rows))
        found = {}
        for name, own in rows.items():
            found[name] = np.empty((sum(len(part[name]) for part in parts), *own.shape[1:]), own.dtype)
            for rank, part in enumerate(parts):
                found[name][rank :: len(parts)] = part[name]
        return found

    @abstractmethod
    def predictions(self) -> dict[str, np.ndarray]:
        """What comparisons need of the test just made: arrays with one row per test item, in the split's order.

        Every process calls it; the first one's are kept.
        """

    @abstractmethod
    def report(self, run: Any) -> list[Section]:
        """What the run's report shows; `run` is a `running.run.Run`."""

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of what `predictions` kept, figures of each test item by name (N,), whose means two runs are compared by."""
        return {}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """What a page that compares runs of this task shows beyond what all tasks do; pictures go into `folder`."""
        return []


def gathered(own: Any) -> list[Any]:
    """What each process has, in the order of their ranks; every process must call it."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [own]
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return parts


class LossTask(Task):
    """A task of one loss: a subclass says `losses`, and in `report`, if it likes, what to show.

    Logs `{train,val,test}/loss`, means over items; training's over what was trained on since the last validation.
    """

    def __init__(self, network: nn.Module, optimizer: MakeOptimizer, scheduler: MakeScheduler):
        super().__init__(network, optimizer, scheduler)
        self.means = split_means()
        self.tested: list[Tensor] = []

    @abstractmethod
    def losses(self, batch: Any) -> Tensor:
        """The loss of each item of a batch (B,)."""

    def counted(self, batch: Any, split: str) -> Tensor:
        """`losses`, counted in the split's mean."""
        losses = self.losses(batch)
        self.means[f"{split}_mean"].update(losses.detach())
        return losses

    def log_split(self, split: str) -> None:
        mean = self.means[f"{split}_mean"]
        self.log(f"{split}/loss", mean.compute(), prog_bar=True)
        mean.reset()

    def training_step(self, batch: Any, number: int) -> Tensor:
        return self.counted(batch, "train").mean()

    def validation_step(self, batch: Any, number: int) -> None:
        self.counted(batch, "val")

    def on_validation_epoch_end(self) -> None:
        if self.means["train_mean"].update_called:
            self.log_split("train")
        self.log_split("val")

    def on_test_epoch_start(self) -> None:
        self.tested = []

    def test_step(self, batch: Any, number: int) -> None:
        self.tested.append(self.counted(batch, "test").cpu())

    def on_test_epoch_end(self) -> None:
        self.log_split("test")

    def predictions(self) -> dict[str, np.ndarray]:
        """Each test item's loss."""
        return {"loss": torch.cat(self.tested).numpy()}

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"loss": predictions["loss"]}

    def report(self, run: Any) -> list[Section]:
        return []


def split_means(splits: Sequence[str] = ("train", "val", "test")) -> nn.ModuleDict:
    """A mean for each split: `train_mean`, `val_mean`, `test_mean`.

    They are kept in the checkpoint, so that an epoch resumed midway goes on. NaN shows, it is not left out. Double
    where the device has it: float32 rounds a sum over 10,000 images.
    """
    dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64
    means = nn.ModuleDict()
    for split in splits:
        mean = MeanMetric(nan_strategy="disable")
        mean.persistent(True)
        means[f"{split}_mean"] = mean.set_dtype(dtype)
    return means
