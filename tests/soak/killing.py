"""Runs that are killed at a chosen moment and go on, beside one that is not.

Every run is a process of its own, forked from one that has imported torch, so that it costs a second and not ten; what
ends it is a real SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from running import build, stages
from running.check import check_command
from running.stopped import Stopped
from tests.conftest import run_here
from tests.soak.cases import CASES

ASKING = {"term": signal.SIGTERM, "int": signal.SIGINT}
SAVE_PARTS = ("before", "half", "whole", "after")  # of writing one checkpoint
ENDS = {0: "finished", -signal.SIGKILL: "killed", 128 + signal.SIGTERM: "stopped", 128 + signal.SIGINT: "stopped"}


def kill_now() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class At(Callback):
    """Calls `act` at a moment: `step:N` at the end of the Nth training step of this process, `val:N:B` in batch B of
    its Nth validation. Asks the process to end with SIGTERM at `term:N:-`, the Nth step, or `term:N:val`, in the Nth
    validation; with Ctrl-C at `int:N:-` or `int:N:val`."""

    def __init__(self, moment: str, act: Callable[[], Any]):
        self.kind, *numbers = moment.split(":")
        self.in_validation = self.kind == "val" or numbers[1:] == ["val"]
        self.numbers = [int(number) for number in numbers if number.isdigit()]
        self.act, self.steps, self.validations = act, 0, 0
        if self.kind in ASKING:
            self.act = lambda: os.kill(os.getpid(), ASKING[self.kind])

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps += 1
        if not self.in_validation and self.steps == self.numbers[0]:
            self.act()

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validations += 1

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, number: int, loader: int = 0
    ) -> None:
        if self.in_validation and [self.validations, number] == [*self.numbers, 0][:2]:
            self.act()


def arrange(moment: str | None, act: Callable[[], Any] = kill_now) -> None:
    """Has this process act at a moment: those of `At`; `save:N:PART` in its Nth checkpoint; `stage:NAME` as a stage
    begins; `clock:S` after so many seconds."""
    kind, *rest = (moment or "").split(":")
    if kind in ("step", "val", *ASKING):
        callbacks = build.callbacks
        build.callbacks = lambda *given: [*callbacks(*given), At(moment, act)]
    elif kind == "save":
        kill_while_saving(int(rest[0]), rest[1], act)
    elif kind == "stage":
        stages.STAGES[rest[0]] = lambda run: act()
    elif kind == "clock":
        threading.Timer(float(rest[0]), act).start()


def kill_while_saving(number: int, part: str, act: Callable[[], Any]) -> None:
    """Acts before, amid or after the writing of the process's Nth checkpoint, or once it is renamed."""
    count = 0
    write, rename = Path.write_bytes, Path.replace

    def write_and_act(path: Path, content: Any) -> int:
        nonlocal count
        count += path.suffix == ".ckpt"
        if path.suffix == ".ckpt" and count == number:
            if part == "before":
                act()
            if part == "half":
                write(path, bytes(content)[: len(content) // 2])
                act()
        return write(path, content)

    def rename_and_act(path: Path, target: Path) -> Path:
        if path.suffix == ".ckpt" and count == number and part == "whole":
            act()
        renamed = rename(path, target)
        if path.suffix == ".ckpt" and count == number and part == "after":
            act()
        return renamed

    Path.write_bytes, Path.replace = write_and_act, rename_and_act


def in_a_process(words: Sequence[str], folder: Path, moment: str | None = None) -> int:
    """`python train.py WORDS` in `folder`, to be killed at `moment`; its exit status, negative: the signal's number.

    Its output is appended to a file beside the folder.
    """
    return os.waitstatus_to_exitcode(os.waitpid(start_process(words, folder, moment), 0)[1])


def start_process(words: Sequence[str], folder: Path, moment: str | None = None) -> int:
    """As `in_a_process`, without waiting; returns the process's number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        output = os.open(folder.with_suffix(".output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # A shell that runs this in the background has it ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        arrange(moment)
        run_here([*check_command(list(words)), *words], folder)
        status = 0
    except Stopped as end:
        status = end.status
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def interrupted(words: Sequence[str], folder: Path, moments: Sequence[str]) -> list[str]:
    """A run killed, or stopped, at each of the moments, the first counted from its start, the next from where it went
    on, and then finished. Returns how each process ended.

    Raises:
        RuntimeError: a process ended by itself otherwise than well.
    """
    ended = []
    for moment in [*moments, None]:
        last = folder / "checkpoints" / "last.ckpt"
        status = in_a_process([f"ckpt_path={last}"] if last.exists() else words, folder, moment)
        if status not in ENDS:
            raise RuntimeError(f"{moment}: status {status}\n{folder.with_suffix('.output').read_text()[-3000:]}")
        ended.append(ENDS[status])
        if not status:
            break
    return ended


def random_moment(rng: np.random.Generator, steps: int, validations: int, seconds: float) -> str:
    """A moment of a run with so many steps and validations that takes so long; all kinds are equally likely."""
    match rng.integers(6):
        case 0:
            return f"step:{rng.integers(1, steps + 1)}"
        case 1:
            return f"val:{rng.integers(1, validations + 1)}:{rng.integers(2)}"
        case 2:
            return f"save:{rng.integers(1, 2 * validations + 1)}:{rng.choice(SAVE_PARTS)}"
        case 3:
            where = rng.choice(["-", "val"])
            return f"{rng.choice(list(ASKING))}:{rng.integers(1, (steps if where == '-' else validations) + 1)}:{where}"
        case 4:
            return f"stage:{rng.choice(['test', 'report'])}"
        case _:
            return f"clock:{rng.uniform(0, seconds):.2f}"


def whole_run(case: str, words: Sequence[str], folder: Path) -> float:
    """The run that is not interrupted; returns how many seconds it took."""
    started = time.perf_counter()
    status = in_a_process(words, folder)
    if status:
        raise RuntimeError(f"{case}: status {status}\n{folder.with_suffix('.output').read_text()[-3000:]}")
    return time.perf_counter() - started


def words_of(case: str, data: Sequence[str]) -> list[str]:
    return [*CASES[case], *(data if "data=text" in CASES[case] else [])]


def prepare_process() -> None:
    """One thread: a process that has started more cannot be forked."""
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "ETUDES_STAMP": "soak"}
