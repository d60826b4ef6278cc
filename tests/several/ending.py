"""Runs in this process that end at a moment as if they were killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from running import build
from running.stopped import Stopped
from tests.soak.killing import At


class Killed(BaseException):
    """In place of a process's death."""


def killed(run: Callable[[list[str], Path], float], words: list[str], folder: Path, moment: str) -> None:
    """`run(words, folder)`, ended at a moment of `tests.soak.killing.At`."""

    def die() -> None:
        raise Killed

    made = build.callbacks
    with pytest.MonkeyPatch.context() as patched, pytest.raises((Killed, Stopped)):
        patched.setattr(build, "callbacks", lambda *given: [*made(*given), At(moment, die)])
        run(words, folder)
