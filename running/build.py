"""What a run is made of: data, network, module and trainer, from its configuration."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, spec_from_dict, spec_to_dict
from lightning_modules.base import MakeOptimizer, MakeScheduler, Task
from lightning_modules.several import SeveralOptimizers
from reporting.folder import find_checkpoint
from reporting.load import load_weights, read_checkpoint
from running.refusals import check_fused, check_network, check_optimizers
from running.training.averaging import WeightAverage
from running.training.budget import Budget
from running.training.callbacks import ProgressLines, Record, ValidateLastStep
from running.training.checkpoints import WholeCheckpoints, batches_done
from running.training.curves import CurvesLogger
from running.training.fused import LaidOut
from running.training.going_on import GoOn, StopGently
from running.training.numbers import FiniteSteps
from running.training.plateau import Plateau

log = logging.getLogger(__name__)
C = TypeVar("C", bound=L.Callback)
# What Lightning, torch and Python raise of settings that cannot be.
WRONG = (TypeError, ValueError, ImportError, ZeroDivisionError, MisconfigurationException)


class Start(NamedTuple):
    """The checkpoint that ckpt_path named; does training go on from it?"""

    path: Path
    checkpoint: dict[str, Any]
    resumes: bool

    @property
    def config(self) -> DictConfig:
        return OmegaConf.create(self.checkpoint["config"])

    @property
    def spec(self) -> Spec:
        return spec_from_dict(self.checkpoint["spec"])

    @property
    def figures(self) -> dict[str, float]:
        return figures_of(self.checkpoint)


class Data(NamedTuple):
    """A datamodule and its spec; `there` is false where the data are missing, and no stage needs them."""

    module: L.LightningDataModule
    spec: Spec
    there: bool


@dataclass
class Run:
    """What a stage works with. `checkpoint_path` is what ckpt_path named; `metrics` are the final figures so far."""

    config: DictConfig
    folder: Path
    datamodule: Any
    module: Task
    trainer: L.Trainer
    checkpoint_path: Path | None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def best_path(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    def callback(self, kind: type[C]) -> C:
        return next(callback for callback in self.trainer.callbacks if isinstance(callback, kind))


def starting_point(config: DictConfig) -> Start | None:
    """The checkpoint to work on, read; None where the run begins anew."""
    if config.ckpt_path is None:
        return None
    resumes = "fit" in config.stages
    path = find_checkpoint(config.ckpt_path, resumes)
    return Start(path, read_checkpoint(path), resumes)


def make_data(config: DictConfig, start: Start | None) -> Data:
    """The data, prepared; where they are missing, and no stage needs them, with the checkpoint's spec.

    Raises:
        UsageError: they are not those that the checkpoint was trained on.
    """
    datamodule = build("data", config.data)
    place_data(datamodule, config)
    try:
        datamodule.prepare_data()
    except UsageError:
        if start is None or set(config.stages) - set(config.task.get("without_data", [])):
            raise
        return Data(datamodule, start.spec, there=False)
    if start and start.spec != datamodule.spec:
        raise UsageError(
            f"'{start.path}' was trained on {start.spec}, but data={config.choices.data} is {datamodule.spec}: choose "
            "the data it was trained on."
        )
    return Data(datamodule, datamodule.spec, there=True)


def place_data(datamodule: Any, config: DictConfig) -> None:
    """Says where training images shall lie.

    Raises:
        UsageError: on the device, and these data are not made for it.
    """
    asked, able = config.get("on_device", "auto"), getattr(datamodule, "can_lie_on_device", False)
    if asked is True and not able:
        raise UsageError(
            f"on_device=true is for images that are flipped and cropped at most, and data={config.choices.data} is "
            "more: leave on_device=auto."
        )
    if able:
        datamodule.on_device = asked


def make_module(config: DictConfig, spec: Spec, start: Start | None) -> Task:
    """The task with its network, in which are the checkpoint's weights, its optimizer and schedule."""
    check_optimizers(config)
    network = build("model", config.model, spec=spec)
    optimizer, scheduler = make_optimizer(config, "optimizer", network)
    made = {"optimizer": optimizer, "scheduler": scheduler}
    if config.get("adversary_optimizer") is not None:
        optimizer, scheduler = make_optimizer(config, "adversary_optimizer", network)
        made |= {"adversary_optimizer": optimizer, "adversary_scheduler": scheduler}
    module = build("task.module", config.task.module, network=network, **made)
    if config.get("fused") and "fit" in config.stages:
        check_fused(config, module)
        module.make_optimizer = partial(made["optimizer"], fused=True)
    if start:
        check_network(config, start.config, start.path)
        load_weights(module, start.checkpoint["state_dict"], start.path)
    return module


def make_optimizer(config: DictConfig, group: str, network: nn.Module) -> tuple[MakeOptimizer, MakeScheduler]:
    """An optimizer of a group and its schedule; what the schedule asks of `optimizer` it is told of this group."""
    own = config.copy()
    own.optimizer = config[group]
    optimizer, scheduler = build(group, own.optimizer), build("scheduler", own.scheduler)
    attempt(f"{group} and scheduler", lambda: scheduler(optimizer(network.parameters()), total_steps=1000))
    return optimizer, scheduler


def make_trainer(config: DictConfig, folder: Path, module: Task, spec: Spec, start: Start | None) -> L.Trainer:
    """Lightning's trainer with the loggers and callbacks of this run."""
    fits, resumes = "fit" in config.stages, start is not None and start.resumes
    step = batches_done(start.checkpoint) if resumes else 0
    own = start is not None and start.path.resolve().parent.parent == folder.resolve()  # later stages of this very run
    curves = CurvesLogger(folder, resumed_at=step if resumes else math.inf if own else None)
    # TensorBoard then leaves out what a killed run wrote after its checkpoint, or before its first.
    purge = {"purge_step": step} if fits else {}
    board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, **purge)
    record = Record(OmegaConf.to_container(config), spec_to_dict(spec), start.checkpoint["seconds"] if resumes else 0.0)
    return build(
        "trainer",
        config.trainer,
        logger=[board, curves] if fits else [board],  # a test alone leaves the folder's curves
        callbacks=callbacks(config, folder, record),
        plugins=WholeCheckpoints(),
        enable_progress_bar=interactive(),
        default_root_dir=folder,
        **limits_of(config, module),
    )


def limits_of(config: DictConfig, module: Task) -> dict[str, int]:
    """What of Lightning's own limits gives way: to a budget, and of several optimizers, whose steps it would count all
    together, to `ValidateLastStep`."""
    if minutes_of(config):
        return {"max_epochs": -1, "max_steps": -1}
    return {"max_steps": -1} if isinstance(module, SeveralOptimizers) else {}


def callbacks(config: DictConfig, folder: Path, record: Record) -> list[L.Callback]:
    """Best and last checkpoint, early stopping, learning-rate curve, progress, and what ends a run."""
    last = folder / "checkpoints" / "last.ckpt"
    common = {"dirpath": folder / "checkpoints", "auto_insert_metric_name": False, "enable_version_counter": False}
    watched = {"monitor": config.task.monitor, "mode": config.task.mode}
    best = watched if config.get("checkpoint", "best") == "best" else {"monitor": "step", "mode": "max"}
    chosen = [
        record,
        GoOn(config.patience),
        *([WeightAverage(config.average)] if config.get("average") else []),
        *([LaidOut()] if config.get("fused") else []),
        FiniteSteps(config.get("nonfinite", "stop"), last),  # after it: it sees the weights being trained
        *([Budget(minutes, record)] if (minutes := minutes_of(config)) else []),
        ValidateLastStep(-1 if minutes_of(config) else config.trainer.max_steps),
        StopGently(last),  # after it: it asks whether a validation is due
        LearningRateMonitor("step"),
        ModelCheckpoint(**common, filename="best", **best, save_on_train_epoch_end=False),
        RichProgressBar() if interactive() else ProgressLines(),
    ]
    if config.patience is not None:
        chosen.append(EarlyStopping(**watched, patience=config.patience, check_on_train_epoch_end=False))
    chosen.append(Plateau(last.with_name("plateau.ckpt")))
    # Last, so that it also holds what the other callbacks did at this validation.
    chosen.append(ModelCheckpoint(**common, filename="last", monitor=None, save_on_train_epoch_end=False))
    return chosen


def batches_of(datamodule: Any) -> dict[str, int]:
    """How many batches each split has; of several loaders the fewest."""
    found = {}
    for split in ("train", "val", "test"):
        made = getattr(datamodule, f"{split}_dataloader")()
        found[split] = min(map(len, made.values() if isinstance(made, dict) else [made]))
    return found


def figures_of(checkpoint: dict[str, Any]) -> dict[str, float]:
    """Training and validation figures as they were when the checkpoint was written."""
    return {name: value for name, value in checkpoint["metrics"].items() if name.startswith(("train/", "val/"))}


def minutes_of(config: DictConfig) -> float | None:
    """The budget of time, None without one."""
    return OmegaConf.select(config, "budget.minutes")


def interactive() -> bool:
    """Is somebody watching a terminal that can draw a progress bar?"""
    return sys.stdout.isatty()


def build(group: str, node: DictConfig, **given: Any) -> Any:
    """`instantiate`, with a mistake in the group's settings said in one sentence."""
    return attempt(group, lambda: instantiate(node, **given))


def attempt(group: str, make: Callable[[], Any]) -> Any:
    """What `make` makes from a configuration group.

    Raises:
        UsageError: the group's settings are wrong, in the words of whatever refused them.
    """
    try:
        return make()
    except (InstantiationException, RuntimeError, OverflowError, MemoryError, *WRONG) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UsageError):
            raise cause from None
        if not isinstance(cause, WRONG) and not too_large(cause):
            raise
        said = str(cause).split(". ")[0].splitlines()[0].rstrip(".:!")
        said = "they need more memory than there is" if too_large(cause) else said
        raise UsageError(
            f"These {group} settings cannot work: {said}; `python train.py --help` shows the usual."
        ) from error


def too_large(error: BaseException | None) -> bool:
    """Do these sizes ask for more memory than any machine, or this one, has?"""
    words = ("allocate", "overflow", "too large", "too many elements", "numel")
    return isinstance(error, (RuntimeError, OverflowError, MemoryError)) and any(
        word in f"{type(error).__name__} {error}".lower() for word in (*words, "memory")
    )
