"""The answer of a sweep: summary.md, summary.csv, summary.html and figures, from whatever runs a folder holds.

`python -m reporting.summary DIR` at any time; `python -m reporting.summary DIR DIR … --to DIR` over several sweeps.
A sweep writes it by itself when it ends, also when it is interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UsageError
from datamodules.tools import Arguments, run_tool
from reporting.summary.page import outline, write_summary


def main(words_given: Sequence[str]) -> str:
    parser = Arguments(prog="python -m reporting.summary", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", type=Path, help="a sweep's folder, or any folder that holds runs")
    parser.add_argument("--to", type=Path, help="where the summary goes; needed for several folders")
    given = parser.parse_args(words_given)
    if len(given.folder) > 1 and given.to is None:
        raise UsageError("Several folders: say where their summary goes, with --to FOLDER.")
    try:
        return outline(write_summary(given.folder, given.to or given.folder[0]))
    except OSError as error:
        raise UsageError(f"The summary cannot be written: {error}.") from error


if __name__ == "__main__":
    run_tool(main)
