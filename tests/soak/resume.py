"""`python -m tests.soak.resume --moments CASE=MOMENT … --folder DIR`: ended runs against whole ones, as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from reporting.load import read_checkpoint
from tests.soak.cases import CASES, make_data
from tests.soak.compare import differences
from tests.soak.killing import interrupted, prepare_process, random_moment, whole_run, words_of


def trial(words: list[str], whole: Path, folder: Path, moments: list[str]) -> dict[str, Any]:
    """One run killed at some moments against the whole one."""
    try:
        ended = interrupted(words, folder, moments)
        return {"moments": moments, "ended": ended, "differences": differences(whole, folder)}
    except Exception as error:
        return {"moments": moments, "ended": [], "differences": [f"{type(error).__name__}: {error}"]}


def trials(case: str, points: int, seed: int, folder: Path, data: list[str]) -> list[dict[str, Any]]:
    """`points` runs of a case, each killed at one or two random moments."""
    words = words_of(case, data)
    seconds = whole_run(case, words, folder / "whole")
    validations = (folder / "whole/metrics.csv").read_text().splitlines()
    column = validations[0].split(",").index("val/loss")
    count = sum(bool(row.split(",")[column]) for row in validations[1:])
    steps = read_checkpoint(folder / "whole/checkpoints/last.ckpt")["global_step"]
    rng = np.random.default_rng((seed, sorted(CASES).index(case)))
    found = []
    for number in range(points):
        moments = [random_moment(rng, steps, count, seconds) for _ in range(1 + number % 2)]
        found.append(trial(words, folder / "whole", folder / str(number), moments))
    return found


def chosen(moments: list[str], folder: Path, data: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Runs ended at the moments `case=moment` or `case=moment+moment`, each against the case's whole run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (case, own) in enumerate(each.split("=") for each in moments):
        words = words_of(case, data)
        if case not in found:
            (folder / case).mkdir()
            whole_run(case, words, folder / case / "whole")
        outcome = trial(words, folder / case / "whole", folder / case / str(number), own.split("+"))
        found.setdefault(case, []).append(outcome)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", nargs="+", required=True, help="CASE=MOMENT or CASE=MOMENT+MOMENT, see killing.py")
    parser.add_argument("--folder", type=Path, required=True, help="what to leave the runs in")
    given = parser.parse_args()
    prepare_process()
    print(json.dumps(chosen(given.moments, given.folder, make_data(given.folder / "data"))))


if __name__ == "__main__":
    main()
