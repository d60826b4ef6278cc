"""Many runs: one after another, at once, and one that is long; and what they leave behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Callback

from running import build
from tests.soak.killing import in_a_process, start_process, words_of

SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=5"]
LONG = ["model=pixelcnn", "model.hidden=4", "model.layers=1", "stages=[fit]", "trainer.max_epochs=200", "patience=null"]
LONG += ["trainer.limit_train_batches=4", "trainer.limit_val_batches=1", "trainer.precision=32-true"]
LONG += ["task.module.snapshots=0", "trainer.log_every_n_steps=1"]
PAGE = os.sysconf("SC_PAGE_SIZE")


def in_a_row(count: int, folder: Path, data: Sequence[str]) -> list[str]:
    """`count` short runs, one after the other; what went wrong."""
    cases = ["pixelrnn", "classification", "char_lm"]
    ends = [in_a_process([*words_of(cases[n % 3], data), *SHORT], folder / f"row{n}") for n in range(count)]
    return [f"run {number}: status {status}" for number, status in enumerate(ends) if status]


def at_once(count: int, folder: Path, data: Sequence[str]) -> list[str]:
    """`count` runs that begin together and prepare the same data, which is in no cache yet; what went wrong."""
    cache = f"paths.cache={folder / 'fresh cache'}"
    words = [[*words_of("classification", data), *SHORT, cache] for _ in range(count)]
    ends = [start_process(own, folder / f"once{number}") for number, own in enumerate(words)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ends]
    return [f"run {number}: status {status}" for number, status in enumerate(ends) if status]


class Memory(Callback):
    """Writes the process's resident memory at the end of each epoch, in bytes, to a file."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        with self.path.open("a") as file:
            file.write(f"{pages * PAGE}\n")


def memory_of_a_long_run(folder: Path) -> list[int]:
    """Resident bytes at the end of each of 200 epochs on the digits."""
    path = folder / "memory"
    with added(lambda: Memory(path)):
        status = in_a_process(LONG, folder / "long")
    if status:
        raise RuntimeError((folder / "long.output").read_text()[-2000:])
    return [int(line) for line in path.read_text().split()]


class added:
    """While it holds, every run has one callback more."""

    def __init__(self, make: Callable[[], Callback]):
        self.make, self.callbacks = make, build.callbacks

    def __enter__(self) -> None:
        build.callbacks = lambda *given: [*self.callbacks(*given), self.make()]

    def __exit__(self, *_: Any) -> None:
        build.callbacks = self.callbacks


def left_over(folder: Path) -> list[str]:
    """Processes of this one's that still run, locks that are held, and half-written files in the runs' folders."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = [f"process {child}" for child in children]
    for path in folder.rglob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            found.append(f"held: {path}")
    hidden = [path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]
    return found + [f"half-written: {path.relative_to(folder)}" for path in hidden if ".hydra" not in path.parts]
