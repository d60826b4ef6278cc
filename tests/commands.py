"""Commands as a user gives them, run in this process: what they print, and how they end."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import train


class Ended(NamedTuple):
    """A command's exit status and what it wrote on stderr; a traceback counts as written there, and as status 1."""

    status: int
    stderr: str


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Hydra and Lightning set up logging for a whole process: here it comes back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:], root.level = handlers, level


def ended(main: Callable[[], object], words: Sequence[str], folder: Path, **environment: str) -> Ended:
    """How `python … WORDS`, whose `main` this is, ends in `folder`."""
    stderr = io.StringIO()
    given = {"ETUDES_STAMP": "stamp", "ETUDES_CACHE": str(folder / "cache"), "HYDRA_MAIN_MODULE": "__main__"}
    status = 0
    with (
        mock.patch.dict(os.environ, given | {"HF_HUB_OFFLINE": "1"} | environment),
        mock.patch.object(sys, "argv", ["train.py", *words]),
        contextlib.chdir(folder),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(io.StringIO()),
        logging_kept(),
    ):
        try:
            main()
        except SystemExit as end:  # as the interpreter does with its code
            status = end.code if isinstance(end.code, int) else 1
            if not isinstance(end.code, int):
                print(end.code, file=stderr)
        except BaseException:
            status = 1
            traceback.print_exc(file=stderr)
    return Ended(status, stderr.getvalue())


def train_ended(words: Sequence[str], folder: Path, **environment: str) -> Ended:
    """How `python train.py WORDS` ends."""
    return ended(train.main, words, folder, **environment)
