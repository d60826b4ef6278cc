"""RESULTS.md, made from the runs and sweeps kept under results/.

`python -m reporting.results` writes it anew, and each results/NAME/classes.md.
`python -m reporting.results RUN NAME [FIGURE …]` keeps a run first, as results/NAME.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UsageError
from datamodules.tools import Arguments, run_tool
from reporting.folder import REPOSITORY
from reporting.results.keep import keep_either
from reporting.results.page import write_results


def main(words: Sequence[str]) -> Path:
    parser = Arguments(prog="python -m reporting.results", description="Writes RESULTS.md, keeping a run first.")
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder, or a sweep's")
    parser.add_argument("name", nargs="?", help="what to keep it as, such as pixelrnn/digits or sweeps/digits")
    parser.add_argument(
        "figures", nargs="*", metavar="figure", help="names of files in its figures/ (a sweep's: in it)"
    )
    parser.add_argument("--weights", action="store_true", help="keep its best weights too")
    args = parser.parse_intermixed_args(words)
    if args.run and not args.name:
        raise UsageError("Say under which name to keep the run: python -m reporting.results RUN NAME [FIGURE …]")
    if args.run:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)*", args.name):
            raise UsageError(f"{args.name!r} is no name to keep a run by: give one such as pixelrnn/digits.")
        keep_either(args.run, REPOSITORY / "results" / args.name, args.figures, args.weights)
    return write_results(REPOSITORY / "results")


if __name__ == "__main__":
    run_tool(main)
