"""What every task's LightningModule shares: its optimizer, and the figures of its splits, counted in one place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from lightning_modules.gathering import Rows, gathered, in_order
from reporting.report import ComparedRun, Section

MakeOptimizer = Callable[..., torch.optim.Optimizer]
MakeScheduler = Callable[..., LRScheduler]
Sums = dict[str, list[Tensor]]  # by name Σ above and Σ below
TICKS = 10_000  # steps of a schedule that is laid over a budget of time


class Ratio(NamedTuple):
    """A figure that is no plain mean: Σ above / Σ below over a split's items, say nats / words. Each (B, …)."""

    above: Tensor
    below: Tensor


class Measured(NamedTuple):
    """What one batch comes to.

    loss: what is trained on, with its graph.
    values: numbers of each item by name (B,), or a Ratio. Their mean over the split is logged as `{split}/{name}`; a
        name that begins with _ is for `figures` alone. Of (B, …) the mean has the shape …, and is kept, not logged.
    rows: what is kept of each item of a validation or test (B, …), or a list of B tensors where they differ in length.
    """

    loss: Tensor
    values: Mapping[str, Tensor | Ratio]
    rows: Mapping[str, Rows] = {}


class Task(L.LightningModule):
    """A network, how it is optimised, what is measured of it, and what a run of it leaves behind.

    A task says in `measure` what one batch comes to, in `figures` what follows from means or from all rows, in
    `report` what is shown. Training's figures are means over what was trained on since the last validation. A
    datamodule may give several validation or test loaders, a dict by name: figures and rows of each end in `_<name>`,
    of one named "" they have no ending; the figures of the first have their plain names too.

    A stage of its own is a method `stage_<name>(run)`; its options are top-level keys of `conf/task/<task>.yaml`, which
    says under `task`:

    - `stages`, `other_stages`: those that run by themselves, and those that run when asked for.
    - `without_network`: those that need no trained network. They may come before `fit`, or stand without it; a run of
      such stages is judged by what `stage_monitors: {stage: [figure, min or max]}` names, and gone on with by the same
      command in its folder.
    - `without_data`: those for which a checkpoint is enough. `every_process`: those that run on all, not the first.
    - `compared`: a sweep's summary shows `comparison` too. `ranked: false`: each of its settings has other data.
    - `large_models`: networks too big for a test, which are built on the meta device only.

    Args:
        network: a plain module, made from the data's spec.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
    """

    bar: tuple[str, ...] = ("loss", "accuracy")  # figures beside a progress bar
    step_figure = "loss"  # what the curve of single steps shows: see `step_value`
    max_steps = -1  # batches after which a training ends, whatever its epochs; -1: none
    player: str | None = None  # of several whose optimizers step in turn, the one whose step is under way,
    option = "optimizer"  # and the group of its optimizer

    def __init__(self, network: nn.Module, optimizer: MakeOptimizer, scheduler: MakeScheduler):
        super().__init__()
        self.network, self.make_optimizer, self.make_scheduler = network, optimizer, scheduler
        self.spent: float | None = None  # the part of the run's budget of time that is spent; None: it has none
        self.sums: dict[str, Sums] = {}  # of each split, this process's
        self.rows: dict[str, list[Mapping[str, Rows]]] = {}  # of each split, batch by batch
        # What the last test left: arrays with a row for each item, in the split's order, or lists where rows differ in
        # length; of several tests with the loader's name as an ending, unless that is empty.
        self.predictions: dict[str, np.ndarray | list[np.ndarray]] = {}

    @abstractmethod
    def measure(self, batch: Any, split: str) -> Measured:
        """What a batch comes to. `split` is train, val or test; of one of several loaders val_<name> or test_<name>."""

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Rows]) -> dict[str, Any]:
        """What follows from a split's means (float64) or from all its rows, on the CPU; once at its end.

        Numbers are logged like the means, and take the place of those they are named as; a test's arrays are kept.
        """
        return {}

    def on_validated(self, found: Mapping[str, float]) -> None:
        """A validation's figures are there, its checkpoint is not yet written."""

    def on_step_skipped(self) -> None:
        """A step whose loss or gradient was not finite has just been left out (`nonfinite=skip`)."""

    def data_of(self, datamodule: Any) -> Any:
        """What a run works on, given its data: of a task whose trainings may not see all of it, the rest hidden."""
        return datamodule

    def before_fit(self, run: Any) -> None:
        """A training is about to begin anew: what must be there before, trained by itself, is made now."""

    def check_stages(self, run: Any) -> None:
        """Raises UsageError when a stage to come cannot work; before the first, so that no training is lost to it."""

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows; `run` is a `running.run.Run`."""
        return []

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of what a test left, figures of each item by name (N,), whose means two runs are compared by."""
        return {}

    @staticmethod
    def kept_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Of what a test left, figures that results/ keeps beside those of metrics.json."""
        return {}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """What a page that compares runs of this task shows beyond what all tasks do; pictures go into `folder`."""
        return []

    # Training

    def forward(self, *inputs: Any) -> Any:
        return self.network(*inputs)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.scheduled(self.make_optimizer(self.parameters()))

    def scheduled(self, optimizer: torch.optim.Optimizer, make: MakeScheduler | None = None) -> dict[str, Any]:
        """The optimizer and its schedule over the whole training, as Lightning wants them; `make` another schedule."""
        steps = TICKS if self.spent is not None else int(self.batches_planned)
        scheduler = (make or self.make_scheduler)(optimizer, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning clips, which refuses a fused optimizer as if its gradients were scaled: they are in 16-mixed."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            kind = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, kind)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any = None) -> None:
        """One step of the schedule after each of training's; under a budget as many as the time spent asks for.

        A plateau's end is passed in a step of its own, so that its state can be kept.
        """
        if self.spent is None:
            scheduler.step()
            return
        aim, end = min(int(self.spent * TICKS), TICKS - 1), getattr(scheduler, "plateau_end", TICKS)
        if scheduler.last_epoch < end:
            aim = min(aim, end)
        while scheduler.last_epoch < aim:
            scheduler.step()

    @property
    def part_done(self) -> float:
        """The part of the training that is done: of its time under a budget, else of its steps."""
        return self.batches_done / self.batches_planned if self.spent is None else self.spent

    @property
    def batches_done(self) -> int:
        """The training's steps so far, as its curves, limits and schedules count them."""
        return self.global_step

    @property
    def batches_planned(self) -> float:
        """How many it has in all; infinitely many under a budget of time."""
        return self.trainer.estimated_stepping_batches

    # Figures: each batch is counted, each split closed at its end

    def training_step(self, batch: Any, number: int) -> Tensor:
        measured = self.measure(batch, "train")
        self.count(measured, "train")
        self.show_step(measured.loss.detach())
        return measured.loss

    def show_step(self, loss: Tensor) -> None:
        """Logs a step's loss; beside a bar only where there is one: Lightning reads it at every step, and so waits for
        the device."""
        bar = self.trainer.progress_bar_callback is not None
        self.log(f"train/{self.step_figure}_step", self.step_value(loss), prog_bar=bar)

    def step_value(self, loss: Tensor) -> Tensor:
        """A step's loss in the units of `step_figure`."""
        return loss

    def validation_step(self, batch: Any, number: int, dataloader_idx: int = 0) -> None:
        self.examine(batch, number, list(self.loaders("val"))[dataloader_idx])

    def test_step(self, batch: Any, number: int, dataloader_idx: int = 0) -> None:
        self.examine(batch, number, list(self.loaders("test"))[dataloader_idx])

    def examine(self, batch: Any, number: int, split: str) -> None:
        if number == 0:  # what a sanity check, or an interrupted validation, left
            self.sums[split], self.rows[split] = {}, []
        measured = self.measure(batch, split)
        self.count(measured, split)
        self.rows[split].append({name: on_cpu(rows) for name, rows in measured.rows.items()})

    def count(self, measured: Measured, split: str) -> None:
        sums = self.sums.setdefault(split, {})
        for name, value in measured.values.items():
            new = summed(value)
            if name in sums:  # perhaps a checkpoint's, which are on the CPU
                new = [part + before.to(part) for part, before in zip(new, sums[name], strict=True)]
            sums[name] = new

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.on_validated(self.close("train") | self.close("val"))

    def on_test_epoch_end(self) -> None:
        self.predictions = {}
        self.close("test")

    def close(self, kind: str) -> dict[str, float]:
        """Logs what a split, or each of a test's several, comes to, and forgets it; every process calls it."""
        found: dict[str, float] = {}
        for place, (split, loader) in enumerate(self.loaders(kind).items()):
            ending = split.removeprefix(kind)
            means = {name: above / below for name, (above, below) in self.totals(split).items()}
            rows = in_order(self.rows.pop(split, []), dealt=getattr(loader, "world", 1) > 1)
            if not means and not rows:  # nothing was trained on
                continue
            self.sums.pop(split, None)
            for name, value in (means | self.figures(split, means, rows)).items():
                if isinstance(value, list) or np.ndim(value):
                    rows[name] = value
                elif name[0] != "_":
                    found[f"{kind}/{name}{ending}"] = float(value)
                    if place == 0:  # of several the first is the main one: its figures have their plain names too
                        found[f"{kind}/{name}"] = float(value)
            if kind == "test":
                self.predictions |= {name + ending: as_arrays(kept) for name, kept in rows.items() if name[0] != "_"}
        for name, value in found.items():
            self.log(name, torch.tensor(value, dtype=exact(self.device)), prog_bar=name.partition("/")[2] in self.bar)
        return found

    def loaders(self, kind: str) -> dict[str, Any]:
        """The splits of a kind and their loaders; a datamodule may give several validation or test loaders, by name."""
        found = None if kind == "train" else getattr(self.trainer, f"{kind}_dataloaders")
        return {f"{kind}_{k}".rstrip("_"): v for k, v in found.items()} if isinstance(found, dict) else {kind: found}

    def totals(self, split: str) -> Sums:
        """A split's sums over all processes, on the CPU; every process calls it."""
        found: Sums = {}
        for part in gathered(self.own_sums(split)):
            for name, pair in part.items():
                found[name] = [new + old for new, old in zip(pair, found.get(name, (0, 0)), strict=True)]
        return found

    def own_sums(self, split: str) -> Sums:
        return {name: [part.cpu().double() for part in pair] for name, pair in self.sums.get(split, {}).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sums"] = gathered(self.own_sums("train"))  # of each process: an epoch resumed midway goes on

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sums["train"] = checkpoint["sums"][self.trainer.global_rank]


class LossTask(Task):
    """A task of one loss, logged as `{train,val,test}/loss`: a subclass says `losses`."""

    @abstractmethod
    def losses(self, batch: Any) -> Tensor:
        """The loss of each item of a batch (B,)."""

    def measure(self, batch: Any, split: str) -> Measured:
        losses = self.losses(batch)
        return Measured(losses.mean(), {"loss": losses}, {"loss": losses} if split.startswith("test") else {})

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"loss": predictions["loss"]}


def summed(value: Tensor | Ratio) -> list[Tensor]:
    """Σ above and Σ below over a batch's items."""
    if isinstance(value, Ratio):
        return [part.detach().to(exact(part.device)).sum(0) for part in value]
    return [value.detach().to(exact(value.device)).sum(0), torch.tensor(len(value), dtype=torch.float64)]


def exact(device: torch.device) -> torch.dtype:
    """What sums are taken in: float32 rounds a sum over 10,000 images, but Apple's GPUs have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def on_cpu(rows: Rows) -> Rows:
    """Rows as they are kept: NumPy has no bfloat16."""
    if isinstance(rows, list):
        return [on_cpu(row) for row in rows]
    return rows.detach().cpu().to(torch.float32 if rows.dtype == torch.bfloat16 else rows.dtype)


def as_arrays(rows: Any) -> np.ndarray | list[np.ndarray]:
    return [np.asarray(row) for row in rows] if isinstance(rows, list) else np.asarray(rows)
