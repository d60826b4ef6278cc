"""The stages of every task: fit, test, report. (A task's own are its methods `stage_<name>`.)"""

from __future__ import annotations

import logging
import math
import signal
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from reporting.figures import save_curves
from reporting.folder import leaves, read_metrics
from reporting.load import read_checkpoint
from reporting.predictions import write_predictions
from reporting.report import Section, write_report
from running.build import Run, figures_of
from running.stopped import Stopped
from running.training.callbacks import Record
from running.training.going_on import StopGently
from running.training.numbers import FiniteSteps

log = logging.getLogger(__name__)


def fit(run: Run) -> None:
    """Trains; the module then holds the best checkpoint's weights, and the metrics are that checkpoint's."""
    if run.checkpoint_path is None:
        run.module.before_fit(run)
    try:
        run.trainer.fit(run.module, datamodule=run.datamodule, ckpt_path=run.checkpoint_path, weights_only=True)
    except SIGTERMException:
        raise Stopped(run.callback(StopGently).number or signal.SIGTERM) from None
    run.metrics |= {"seconds/fit": round(run.callback(Record).seconds, 2), "steps": run.module.batches_done}
    run.metrics |= {"epochs": run.trainer.current_epoch}
    if skipped := run.callback(FiniteSteps).skipped:
        run.metrics["steps_skipped"] = skipped
    found = run.trainer.callback_metrics.get(run.config.task.monitor)
    if found is not None and not math.isfinite(found):
        raise UsageError(
            f"Training diverged: {run.config.task.monitor} is {found.item()} after {run.module.batches_done} steps; "
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
    if run.trainer.is_global_zero:
        write_predictions(run.folder, run.module.predictions)


def report(run: Run) -> None:
    """Writes report.md with its figures, from what the other stages left in the folder."""
    if not run.trainer.is_global_zero:
        return
    run.metrics = read_metrics(run.folder) | run.metrics
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
    groups = ("model.", "optimizer.", "adversary_optimizer.")
    wanted += [key for key in keys if key.startswith(groups) and "._" not in key]
    return {"seed": config.seed} | chosen | {key: keys[key] for key in wanted if key in keys}
