"""SIGTERM and Ctrl-C end a command with what to do next, and a status that says so."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """A signal has asked for the end: no `Exception`, so that nothing takes it for a failure and goes on.

    Args:
        number: the signal's; the command's exit status is 128 more, as of a command that a shell saw die of it.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.status = 128 + number
        self.said = "Stopped."


def listen() -> None:
    """From now on SIGTERM and Ctrl-C raise `Stopped` wherever the program is. (`running.training.going_on.StopGently`
    waits for the end of a training step instead.)"""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job that a shell runs in the background
                signal.signal(number, stop)


def stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
