"""Several processes of one run: those that Lightning starts run this very job, and are gone when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from datamodules.errors import UsageError

# What Lightning sets for the processes it starts, and does not take away.
PLACES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
END_WITHIN = 10  # seconds


@contextmanager
def of_one_run(config: DictConfig, folder: Path, asked: Sequence[str]) -> Iterator[None]:
    """Where the job of a sweep runs in several processes, the others are started as a run of its own in its folder.

    (They run this process's command again, which is the whole sweep.) Afterwards nothing is left of them, so that the
    next job begins as the first did.
    """
    hydra_config = HydraConfig.get()
    if not str(config.trainer.strategy).startswith("ddp") or "LOCAL_RANK" in os.environ:
        yield
        return
    argv = list(sys.argv)
    if hydra_config.mode is RunMode.MULTIRUN:
        own = [word for word in hydra_config.overrides.task if not word.startswith(("ckpt_path=", "stages="))]
        own.append(f"stages=[{','.join(config.stages)}]")  # as `sweep.go_on` left them
        if config.ckpt_path is not None:
            own.append(f"ckpt_path='{config.ckpt_path}'")
        sys.argv = [argv[0], *own, "hydra.mode=RUN"]
        with read_write(hydra_config):
            hydra_config.run.dir = str(folder)  # Lightning adds it to the words
    elif list(config.stages) != asked:
        sys.argv = [*argv, f"stages=[{','.join(config.stages)}]"]  # as `sweep.go_on` left them
    try:
        yield
    finally:
        sys.argv = argv
        end_others()


def end_others() -> None:
    """Ends the processes that Lightning started, or waits until they have; forgets their places."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":  # it would kill this process for a failure already reported
            children, thread._child_processes = thread._child_processes, []
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(END_WITHIN if sys.exc_info()[0] is None else 1)
                if child.poll() is None:
                    child.kill()
                    child.wait()
    for name in PLACES:
        os.environ.pop(name, None)
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_one_folder(words: Sequence[str]) -> None:
    """Raises UsageError when processes that torchrun started would each make a run folder of its own."""
    started = "TORCHELASTIC_RUN_ID" in os.environ and "ETUDES_STAMP" not in os.environ
    if started and not any(word.startswith(("hydra.run.dir=", "ckpt_path=")) for word in words):
        raise UsageError("The processes that torchrun starts need one folder: give hydra.run.dir=FOLDER.")
