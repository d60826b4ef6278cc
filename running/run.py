"""One run: its parts made from a configuration, then its stages in order."""

from __future__ import annotations

import logging
import math
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from reporting.folder import monitored, read_metrics
from running.build import Data, Run, Start, batches_of, make_data, make_module, make_trainer, starting_point
from running.check import check_new_folder
from running.memory import keep_freed_memory
from running.precision import resolve_precision
from running.provenance import write_config, write_metrics
from running.refusals import check_batches, check_devices, check_processes, check_resumable
from running.stages import STAGES, log_hyperparameters
from running.training.checkpoints import check_holds_all

log = logging.getLogger(__name__)


def execute(config: DictConfig, folder: Path) -> float:
    """Runs the stages of a checked configuration in `folder`; returns the monitored metric, NaN if there is none.

    Raises:
        UsageError: something in the configuration, the data or the checkpoint cannot work.
    """
    quieten()
    start = starting_point(config)  # the checkpoint of ckpt_path, read; or nothing
    L.seed_everything(config.seed, verbose=False)
    config.trainer.precision, why = resolve_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    check_devices(config.trainer)
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
    data = make_data(config, start)
    module = make_module(config, data.spec, start)
    data = data._replace(module=module.data_of(data.module))
    parameters = sum(p.numel() for p in module.network.parameters() if p.requires_grad)
    introduce(config, folder, data, parameters, why)
    check_beginning(config, folder, start, data)
    trainer = make_trainer(config, folder, module, data.spec, start)
    if start and start.resumes:
        check_processes(start.checkpoint, trainer.world_size)
    if data.there:
        check_batches(config.trainer, batches_of(data.module))
    metrics = {"parameters": parameters, **(start.figures if start else {})}
    run = Run(config, folder, data.module, module, trainer, start and start.path, metrics)
    module.check_stages(run)
    if trainer.is_global_zero:
        write_config(folder, OmegaConf.to_container(config, resolve=True))
    last_measured = next((stage for stage in ("test", "fit") if stage in config.stages), None)
    for stage in config.stages:
        run_stage(stage, run)
        if stage == last_measured:
            log_hyperparameters(run)
        if trainer.is_global_zero:  # after every stage: a run that is killed goes on with the next
            write_metrics(folder, run.metrics)
    if not trainer.is_global_zero:
        return math.nan
    kept = OmegaConf.load(folder / "config.yaml")  # with the stages that an earlier start has done
    return read_metrics(folder).get(monitored(kept)[0], math.nan)


def run_stage(stage: str, run: Run) -> None:
    """A stage of every task, or the task's own: that on the first process, unless it is one of `every_process`."""
    log.info("stage %s", stage)
    started = time.perf_counter()
    every = stage in run.config.task.get("every_process", [])
    if every:
        together(run.trainer)
    if stage in STAGES:
        STAGES[stage](run)
    elif run.trainer.is_global_zero or every:
        run.module.to(run.trainer.strategy.root_device)
        getattr(run.module, f"stage_{stage}")(run)
    if stage != "fit":  # whose seconds include those before it went on
        run.metrics[f"seconds/{stage}"] = round(time.perf_counter() - started, 2)


def together(trainer: L.Trainer) -> None:
    """Starts the run's other processes and connects them, which Lightning does only to train or test."""
    if (launcher := trainer.strategy.launcher) is not None:
        launcher.launch(lambda: None, trainer=trainer)
    trainer.strategy.setup_environment()


def introduce(config: DictConfig, folder: Path, data: Data, parameters: int, why: str) -> None:
    """Log lines that say what is about to run."""
    if data.there and data.module.note:
        log.info("data: %s", data.module.note)
    log.info(
        "%s on %s, %s parameters; precision %s (%s); folder %s",
        config.choices.model,
        config.choices.data,
        f"{parameters:,}",
        config.trainer.precision,
        why,
        folder,
    )


def check_beginning(config: DictConfig, folder: Path, start: Start | None, data: Data) -> None:
    """Raises UsageError when a run cannot go on as the command says, or a new one would mix with an old one."""
    if start and start.resumes:
        check_holds_all(start.checkpoint, start.path)
        check_resumable(config, start.checkpoint, batches_of(data.module))
    else:
        check_new_folder(folder, config.ckpt_path)


def quieten() -> None:
    """Drops Lightning's notes that say nothing about a run here: our loaders are batches in memory."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a teacher's are to stay so
    warnings.filterwarnings("ignore", message=r".*`lr_scheduler\.step\(\)` before `optimizer.*")  # a player may wait
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # a task's figures are of all processes
    torch.set_float32_matmul_precision("high")
