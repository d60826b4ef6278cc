"""The one entry point: compose → check → data → network → fit → test → report. `python train.py --help`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from datamodules.errors import UsageError
from datamodules.files import REFUSALS, cannot_be_written, whole_file
from reporting.folder import monitored
from running import sweep
from running.check import check_command, check_config
from running.composed import sentence
from running.processes import check_one_folder, of_one_run
from running.stopped import Stopped, listen

log = logging.getLogger(__name__)
OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory|Storage size calculation overflowed")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> float:
    """One run: by itself, or one job of a sweep, whose failure must not end the others.

    Returns the monitored metric; what chooses by it sees the worst there is of a job that has none.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    worst = -math.inf if monitored(config)[1] == "max" else math.inf  # not NaN, at which Optuna's sweeper ends
    asked = list(config.stages)
    try:
        choices = hydra_config.runtime.choices
        check_config(config, choices.model, choices.task)
        if goes_on(config, folder, hydra_config.mode) and (found := sweep.go_on(config, folder)) is not None:
            return found if math.isfinite(found) else worst
        from running.configured import final_config  # after the check: torch takes seconds to import
        from running.run import execute

        with of_one_run(config, folder, asked):
            found = execute(final_config(config, hydra_config), folder)
        return found if math.isfinite(found) else worst
    except Stopped as end:
        end.said = f"Stopped. {how_to_go_on(config, asked, hydra_config, folder)}"
        raise
    except Exception as error:
        said = mistake(error)
        if hydra_config.mode is not RunMode.MULTIRUN:
            if said:
                leave_clean(folder)
                sys.exit(said)  # raised further, Hydra would put a line of its own before it
            raise
        log.error("this job failed, the sweep goes on: %s", said or error, exc_info=not said)
        if isinstance(error, sweep.OtherRun):
            return worst
        failure = {"error": type(error).__name__, "message": said or str(error)}
        with suppress(UsageError), whole_file(folder / "failure.json") as unfinished:
            unfinished.write_text(json.dumps(failure, indent=2) + "\n", encoding="utf-8")
        return worst


def goes_on(config: DictConfig, folder: Path, mode: RunMode) -> bool:
    """May this be the second start of a job, or of a run without a checkpoint to go on from?"""
    started_by_another = "LOCAL_RANK" in os.environ  # by Lightning, whose words say what is left; torchrun's repeat all
    begun = config.ckpt_path is not None or sweep.begun_without_network(config, folder)
    return mode is RunMode.MULTIRUN or (not started_by_another and begun)


def how_to_go_on(config: DictConfig, asked: list[str], hydra_config: DictConfig, folder: Path) -> str:
    """A sentence for whoever has stopped a run, or a sweep, in its folder."""
    if hydra_config.mode is RunMode.MULTIRUN:
        return f"The sweep goes on with the same command and hydra.sweep.dir={folder.parent}"
    if config.ckpt_path is not None and "fit" not in asked:
        return f"The run goes on with the same command and hydra.run.dir={folder}"
    last = folder / "checkpoints" / "last.ckpt"
    if not last.exists() and config.ckpt_path is None and sweep.holds_stages(config, folder):
        return f"The run goes on with the same command and hydra.run.dir={folder}"
    if not last.exists():
        return "Nothing was saved yet: give the same command again."
    left = [stage for stage in asked if f"seconds/{stage}" not in sweep.read_json(folder / "metrics.json")]
    if "fit" not in left:
        best = f"ckpt_path={last.with_name('best.ckpt')} hydra.run.dir={folder}"
        return f'The run goes on with: python train.py "stages=[{",".join(left)}]" {best}'
    words = "" if asked == list(config.task.stages) else f'"stages=[{",".join(left)}]" '
    return f"The run goes on where it was with: python train.py {words}ckpt_path={last}"


def mistake(error: BaseException) -> str:
    """The one sentence for an error that the user or the machine made; empty for one of this project's."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return cannot_be_written(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        return (
            "This needs more memory than the machine has: choose a smaller data.batch_size, network or number of draws."
        )
    return sentence(error) if isinstance(error, (HydraException, OmegaConfBaseException)) else ""


def leave_clean(folder: Path) -> None:
    """Takes away what Hydra wrote into the folder of a run that ended before it began, and folders it left empty."""
    if (folder / "config.yaml").exists():
        return
    shutil.rmtree(folder / ".hydra", ignore_errors=True)
    with suppress(OSError):  # a folder that holds anything else stays
        (folder / "train.log").unlink(missing_ok=True)
        for place in (folder, *folder.parents[:3]):
            place.rmdir()


def main() -> None:
    """Runs the command; a user's mistake is one sentence on stderr and exit status 1."""
    try:
        check_one_folder(sys.argv[1:])
    except UsageError as error:
        sys.exit(str(error))
    # One stamp for the whole command: processes that a run starts find the same folder.
    os.environ.setdefault("ETUDES_STAMP", datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f"))
    # Hydra then hands its errors on instead of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    listen()
    logging.raiseExceptions = False  # a log line that finds the disk full is no traceback
    try:
        sys.argv += check_command(sys.argv[1:])
        try:
            job()
        finally:  # an interrupted sweep is summarised too
            summarise()
    except Stopped as end:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes one says it
            print(end.said, file=sys.stderr)
        sys.exit(end.status)
    except Exception as error:
        if said := mistake(error):
            sys.exit(said)
        raise


def summarise() -> None:
    """Writes the summary of each sweep that ran, and shows its best rows."""
    for folder in sweep.folders:
        from reporting.summary.page import outline, write_summary

        try:
            print(outline(write_summary([folder], folder)))
        except UsageError as error:  # there is nothing to summarise
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
