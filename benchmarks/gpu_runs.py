"""Commands side by side on a device until the time is spent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu_rows import Row, startable

GRACE = 20.0  # seconds for a run that is asked to end to write its checkpoint


class Outcome(NamedTuple):
    """What was done, how it came out in words, and the minutes it took (0: it never began)."""

    what: str
    said: str
    minutes: float = 0.0


class Process:
    """A command at work, in a process group of its own; what it says goes to `log`."""

    def __init__(self, words: Sequence[str], log: Path, folder: Path, **environment: str):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.began, self.over = log, time.monotonic(), False
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                words,
                cwd=folder,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.began) / 60

    def end(self, grace: float | None = None) -> None:
        """Asks it to end, and its children, and does not ask again."""
        self.over = True
        for number, wait in ((signal.SIGTERM, GRACE if grace is None else grace), (signal.SIGKILL, None)):
            if self.popen.poll() is None:
                os.killpg(self.popen.pid, number)
                try:
                    self.popen.wait(wait)
                except subprocess.TimeoutExpired:
                    continue

    def last_line(self) -> str:
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")


@dataclass
class Bench:
    """How rows are run: `start` begins one, `keep` keeps what it left and says it, `ready` asks whether what it goes on
    from is there."""

    start: Callable[[Row], Process]
    keep: Callable[[Row], str]
    ready: Callable[[Row], bool]
    tell: Callable[[Outcome], None] = lambda outcome: None
    pause: float = 0.5

    def run(self, rows: Sequence[Row], memory: float, seconds: float) -> list[Outcome]:
        """Runs the rows, in order, side by side as memory (GiB) allows, for so many seconds at most.

        A row that fails, or is ended at its limit, does not end the others; what is still running at the end, or when
        this is interrupted, is ended.
        """
        until = time.monotonic() + seconds
        waiting, running, outcomes = list(rows), {}, []
        try:
            while waiting or running:
                for row, process in list(running.items()):
                    if outcome := self._outcome(row, process, until):
                        del running[row]
                        outcomes.append(outcome)
                        self.tell(outcome)
                busy = {row.name for row in running}
                for row in startable(waiting, list(running), memory, until - time.monotonic(), self._ready(busy)):
                    waiting.remove(row)
                    running[row] = self.start(row)
                if not running:
                    break
                time.sleep(self.pause)
        finally:
            for process in running.values():
                process.end()
        left = [Outcome(row.name, self._why_not(row, until - time.monotonic())) for row in waiting]
        for outcome in left:
            self.tell(outcome)
        return [*outcomes, *left]

    def _ready(self, busy: set[str]) -> Callable[[Row], bool]:
        return lambda row: row.after is None or (row.after not in busy and self.ready(row))

    def _why_not(self, row: Row, seconds: float) -> str:
        if row.after is not None and not self.ready(row):
            return f"left out: {row.after} has no plateau.ckpt to go on from"
        return f"left out: no time for its {row.minutes:g} minutes"

    def _outcome(self, row: Row, process: Process, until: float) -> Outcome | None:
        """How a row came out, once it has; a row at its limit is ended."""
        if process.popen.poll() is None:
            if process.minutes <= row.minutes and time.monotonic() <= until:
                return None
            process.end()
        minutes, status = process.minutes, process.popen.returncode
        if process.over:
            return Outcome(row.name, f"ended after its time: {process.last_line()}", minutes)
        if status:
            return Outcome(row.name, f"failed: {process.last_line()}", minutes)
        try:
            return Outcome(row.name, self.keep(row), minutes)
        except Exception as error:  # of one row, which must not end the others
            return Outcome(row.name, f"not kept: {error}", minutes)
