"""What the command-line tools beside train.py share: their arguments, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from datamodules.errors import UsageError
from datamodules.files import REFUSALS, cannot_be_written


def run_tool(main: Callable[[Sequence[str]], object]) -> None:
    """Runs a tool on the command's words and prints what it returns; a mistake is one sentence, with exit status 1."""
    try:
        print(main(sys.argv[1:]))
    except UsageError as error:
        sys.exit(str(error))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        sys.exit(cannot_be_written(error))


class Arguments(argparse.ArgumentParser):
    """A parser of a tool's arguments whose mistakes are one sentence on stderr and exit status 1, as all others are."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"{message.rstrip('.').replace(chr(10), ' ')}; --help shows what can be given.")


def whole_number(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"it is {text!r}, but it must be a whole number from 1 to 1,000,000")
    return int(text)


def device_here(text: str) -> str:
    """An argument that is a device this machine has."""
    import torch

    if text != "cpu" and not (text == "cuda" and torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(
            f"it is {text!r}, but this machine has cpu{' and cuda' * torch.cuda.is_available()}"
        )
    return text
