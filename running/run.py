"""One run: data, network, module and trainer made from a configuration, then its stages in order."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from datamodules.spec import Spec, spec_from_dict, spec_to_dict
from reporting.figures import save_curves
from reporting.report import Section, write_report
from running import folder as files
from running.averaging import WeightAverage
from running.budget import Budget
from running.callbacks import ProgressLines, Record, ValidateLastStep
from running.check import check_new_folder, find_checkpoint
from running.curves import CurvesLogger
from running.going_on import GoOn, StopGently
from running.load import WholeCheckpoints, load_weights, read_checkpoint
from running.numbers import FiniteSteps
from running.precision import resolve_precision
from running.refusals import check_batches, check_devices, check_holds_all, check_network, check_resumable
from running.stopped import Stopped
from running.sweep import leaves

log = logging.getLogger(__name__)
C = TypeVar("C", bound=L.Callback)
# What Lightning, torch and Python raise of settings that cannot be.
WRONG = (TypeError, ValueError, ImportError, ZeroDivisionError, MisconfigurationException)


@dataclass
class Run:
    """What a stage works with. `checkpoint_path` is what ckpt_path named; `metrics` are the final figures so far."""

    config: DictConfig
    folder: Path
    datamodule: Any
    module: L.LightningModule
    trainer: L.Trainer
    record: Record
    checkpoint_path: Path | None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def best_path(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    def callback(self, kind: type[C]) -> C:
        return next(callback for callback in self.trainer.callbacks if isinstance(callback, kind))


def execute(config: DictConfig, folder: Path) -> float:
    """Runs the stages of a checked configuration in `folder`; returns the monitored metric, NaN if there is none.

    Raises:
        UsageError: something in the configuration, the data or the checkpoint cannot work.
    """
    quieten()
    run = prepare(config, folder)
    last_measured = next((stage for stage in ("test", "fit") if stage in config.stages), None)
    for stage in config.stages:
        log.info("stage %s", stage)
        started = time.perf_counter()
        if stage in STAGES:
            STAGES[stage](run)
        elif run.trainer.is_global_zero:
            run.module.to(run.trainer.strategy.root_device)
            getattr(run.module, f"stage_{stage}")(run)
        if stage != "fit":  # whose seconds include those before it went on
            run.metrics[f"seconds/{stage}"] = round(time.perf_counter() - started, 2)
        if stage == last_measured:
            log_hyperparameters(run)
        if run.trainer.is_global_zero:
            files.write_metrics(folder, run.metrics)
    return run.metrics.get(config.task.monitor, float("nan"))


def interactive() -> bool:
    """Is somebody watching a terminal that can draw a progress bar?"""
    return sys.stdout.isatty()


def prepare(config: DictConfig, folder: Path) -> Run:
    """Makes everything the stages need, and writes config.yaml."""
    path = find_checkpoint(config.ckpt_path, "fit" in config.stages) if config.ckpt_path is not None else None
    checkpoint = read_checkpoint(path) if path else None
    L.seed_everything(config.seed, verbose=False)
    precision, why = resolve_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    config.trainer.precision = precision
    check_devices(config.trainer)

    datamodule = build("data", config.data)
    spec, there = prepare_data(datamodule, checkpoint, config)
    if checkpoint and spec_from_dict(checkpoint["spec"]) != spec:
        raise UsageError(
            f"'{path}' was trained on {spec_from_dict(checkpoint['spec'])}, but data={config.choices.data}"
            f" is {spec}: choose the data it was trained on."
        )
    network = build("model", config.model, spec=spec)
    optimizer, scheduler = build("optimizer", config.optimizer), build("scheduler", config.scheduler)
    attempt("optimizer and scheduler", lambda: scheduler(optimizer(network.parameters()), total_steps=1000))
    module = build("task.module", config.task.module, network=network, optimizer=optimizer, scheduler=scheduler)
    if checkpoint:
        check_network(config, OmegaConf.create(checkpoint["config"]), path)
        load_weights(module, checkpoint["state_dict"], path)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    if there and datamodule.note:
        log.info("data: %s", datamodule.note)
    log.info(
        "%s on %s, %s parameters; precision %s (%s); folder %s",
        config.choices.model,
        config.choices.data,
        f"{parameters:,}",
        precision,
        why,
        folder,
    )

    resumes = checkpoint is not None and "fit" in config.stages
    if resumes:
        check_holds_all(checkpoint, path)
        check_resumable(config, OmegaConf.create(checkpoint["config"]))
    else:
        check_new_folder(folder, config.stages)
    record = Record(OmegaConf.to_container(config), spec_to_dict(spec), checkpoint["seconds"] if resumes else 0.0)
    own = path is not None and path.resolve().parent.parent == folder.resolve()  # later stages of this very run
    curves = CurvesLogger(folder, resumed_at=checkpoint["global_step"] if resumes else math.inf if own else None)
    # TensorBoard then leaves out what a killed run wrote after its checkpoint, or before its first.
    purge = {"purge_step": checkpoint["global_step"] if resumes else 0} if "fit" in config.stages else {}
    board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, **purge)
    trainer = build(
        "trainer",
        config.trainer,
        logger=[board, curves] if "fit" in config.stages else [board],  # a test alone leaves the folder's curves
        callbacks=callbacks(config, folder, record),
        plugins=WholeCheckpoints(),
        enable_progress_bar=interactive(),
        default_root_dir=folder,
        **({"max_epochs": -1, "max_steps": -1} if minutes_of(config) else {}),
    )
    if there:
        check_batches(config.trainer, batches_of(datamodule))
    if trainer.is_global_zero:
        files.write_config(folder, OmegaConf.to_container(config, resolve=True))
    figures = figures_of(checkpoint) if checkpoint else {}
    return Run(config, folder, datamodule, module, trainer, record, path, {"parameters": parameters, **figures})


def prepare_data(datamodule: Any, checkpoint: dict[str, Any] | None, config: DictConfig) -> tuple[Spec, bool]:
    """Prepares the data; their spec, and whether they are there.

    Where they are missing, and no stage needs them, the spec is the checkpoint's.
    """
    try:
        datamodule.prepare_data()
    except UsageError:
        if checkpoint is None or set(config.stages) - set(config.task.get("without_data", [])):
            raise
        return spec_from_dict(checkpoint["spec"]), False
    return datamodule.spec, True


def batches_of(datamodule: Any) -> dict[str, int]:
    """How many batches each split has; of several loaders the fewest."""
    loaders = {split: getattr(datamodule, f"{split}_dataloader")() for split in ("train", "val", "test")}
    return {split: min(map(len, made if isinstance(made, list) else [made])) for split, made in loaders.items()}


def figures_of(checkpoint: dict[str, Any]) -> dict[str, float]:
    """Training and validation figures as they were when the checkpoint was written."""
    return {name: value for name, value in checkpoint["metrics"].items() if name.startswith(("train/", "val/"))}


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


def minutes_of(config: DictConfig) -> float | None:
    """The budget of time, None without one."""
    return OmegaConf.select(config, "budget.minutes")


def callbacks(config: DictConfig, folder: Path, record: Record) -> list[L.Callback]:
    """Best and last checkpoint, early stopping, learning-rate curve, progress, and what ends a run."""
    last = folder / "checkpoints" / "last.ckpt"
    common = {"dirpath": folder / "checkpoints", "auto_insert_metric_name": False, "enable_version_counter": False}
    watched = {"monitor": config.task.monitor, "mode": config.task.mode}
    chosen = [
        record,
        GoOn(config.patience),
        *([WeightAverage(config.average)] if config.get("average") else []),
        FiniteSteps(config.get("nonfinite", "stop"), last),  # after it: it sees the weights being trained
        *([Budget(minutes, record)] if (minutes := minutes_of(config)) else []),
        ValidateLastStep(),
        StopGently(last),  # after it: it asks whether a validation is due
        LearningRateMonitor("step"),
        ModelCheckpoint(**common, filename="best", **watched, save_on_train_epoch_end=False),
        RichProgressBar() if interactive() else ProgressLines(),
    ]
    if config.patience is not None:
        chosen.append(EarlyStopping(**watched, patience=config.patience, check_on_train_epoch_end=False))
    # Last, so that it also holds what the other callbacks did at this validation.
    chosen.append(ModelCheckpoint(**common, filename="last", monitor=None, save_on_train_epoch_end=False))
    return chosen


def fit(run: Run) -> None:
    """Trains; the module then holds the best checkpoint's weights, and the metrics are that checkpoint's."""
    try:
        run.trainer.fit(run.module, datamodule=run.datamodule, ckpt_path=run.checkpoint_path, weights_only=True)
    except SIGTERMException:
        raise Stopped(run.callback(StopGently).number or signal.SIGTERM) from None
    run.metrics |= {"seconds/fit": round(run.record.seconds, 2), "steps": run.trainer.global_step}
    run.metrics |= {"epochs": run.trainer.current_epoch}
    if skipped := run.callback(FiniteSteps).skipped:
        run.metrics["steps_skipped"] = skipped
    found = run.trainer.callback_metrics.get(run.config.task.monitor)
    if found is not None and not math.isfinite(found):
        raise UsageError(
            f"Training diverged: {run.config.task.monitor} is {found.item()} after {run.trainer.global_step} steps; "
            "try a smaller optimizer.lr. The best checkpoint so far is kept."
        )
    if not run.best_path.exists():  # nothing was validated
        run.trainer.save_checkpoint(run.best_path.with_name("last.ckpt"), weights_only=False)
    else:
        best = read_checkpoint(run.best_path)
        run.module.load_state_dict(best["state_dict"])
        run.metrics |= figures_of(best)


def test(run: Run) -> None:
    """Looks at the test split once, with the weights the module holds."""
    figures = run.trainer.test(run.module, datamodule=run.datamodule, verbose=False)[0]
    run.metrics |= figures
    log.info("test:  %s", "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    predictions = run.module.predictions()
    if run.trainer.is_global_zero:
        files.write_predictions(run.folder, predictions)


def log_hyperparameters(run: Run) -> None:
    """Fills TensorBoard's HParams tab: what could be varied, and the final figures as final/…, those of the best
    checkpoint (the curves' own names would show their last points)."""
    shown = [f"{split}/{metric}" for split in ("train", "val", "test") for metric in run.config.task.get("shown", [])]
    finals = {f"final/{name}": run.metrics[name] for name in [run.config.task.monitor, *shown] if name in run.metrics}
    settings = {key: "null" if value is None else value for key, value in settings_of(run.config).items()}
    run.trainer.loggers[0].log_hyperparams(settings | {"parameters": run.metrics["parameters"]}, finals)


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Dotted keys and values that are likely to be varied, the chosen groups by their names."""
    keys = dict(leaves(OmegaConf.to_container(config, resolve=True)))
    choices = ("task", "model", "data", "optimizer", "scheduler", "experiment")
    chosen = {group: keys[f"choices.{group}"] for group in choices}
    wanted = ["data.batch_size", "trainer.max_epochs", "trainer.max_steps", "budget.minutes", "trainer.precision"]
    wanted += ["average"]
    wanted += [key for key in keys if key.startswith(("model.", "optimizer.")) and "._" not in key]
    return {"seed": config.seed} | chosen | {key: keys[key] for key in wanted if key in keys}


def report(run: Run) -> None:
    """Writes report.md with its figures, from what the other stages left in the folder."""
    if not run.trainer.is_global_zero:
        return
    run.metrics = files.read_metrics(run.folder) | run.metrics
    sections = run.module.report(run)
    curves = run.folder / "metrics.csv"
    metrics = run.config.task.get("curves", [run.config.task.monitor.split("/")[1]])
    if curves.exists() and save_curves(run.folder / "figures" / "curves.png", curves, metrics):
        text = "Training figures are means since the last validation."
        sections.append(Section("Curves", text, "figures/curves.png"))
    record = OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml").provenance)
    title = f"{run.config.choices.task}: {run.config.choices.model} on {run.config.choices.data}"
    path = write_report(run.folder, title, record, run.metrics, sections)
    log.info("report: %s", path)


STAGES = {"fit": fit, "test": test, "report": report}


def quieten() -> None:
    """Drops Lightning's notes that say nothing about a run here: our loaders are batches in memory."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    torch.set_float32_matmul_precision("high")
