"""`python -m tests.soak.resume [--cases NAME …] [--points N] [--seed S]`: killed runs against whole ones, as JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from running.load import read_checkpoint
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--points", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", nargs="*", help="these, one run for each, in place of random ones")
    parser.add_argument("--folder", type=Path, default=None, help="what to leave the runs in")
    given = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        data, found = make_data(folder / "data"), {}
        for case in given.cases:
            (folder / case).mkdir()
            if given.moments:
                words = words_of(case, data)
                whole_run(case, words, folder / case / "whole")
                pairs = [(moment, folder / case / str(number)) for number, moment in enumerate(given.moments)]
                found[case] = [trial(words, folder / case / "whole", own, moment.split("+")) for moment, own in pairs]
            else:
                found[case] = trials(case, given.points, given.seed, folder / case, data)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
