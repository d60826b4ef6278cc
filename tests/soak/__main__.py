"""`make soak`: everything that `make test` tries a few of, in full; its table is kept in results/soak.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from running.provenance import git_commit, machine
from tests.conftest import REPOSITORY
from tests.soak.cases import CASES, make_data
from tests.soak.killing import prepare_process
from tests.soak.load import at_once, in_a_row, left_over, memory_of_a_long_run
from tests.soak.resume import trials

GROWTH = 10 * 2**20  # bytes that a run may grow by between its 20th and its 200th epoch


class Table:
    """The rows so far: what was done, how it came out, how long it took."""

    def __init__(self, path: Path, command: str):
        self.path, self.started, self.failed = path, time.perf_counter(), False
        self.lines = ["# Soak", "", f"`{command}`, commit {git_commit(path.parent)}, {machine()}."]
        self.lines += ["", "| what | how it came out | seconds |", "|---|---|---:|"]

    def row(self, what: str, make: Callable[[], tuple[list[str], str]]) -> None:
        """`make` returns what went wrong, and words for when nothing did."""
        started = time.perf_counter()
        try:
            wrong, right = make()
        except Exception as error:
            wrong, right = [f"{type(error).__name__}: {error}"], ""
        self.failed |= bool(wrong)
        outcome = f"**{len(wrong)} wrong**: {'; '.join(wrong)[:600]}" if wrong else right
        outcome = " ".join(outcome.replace("|", "/").split())
        self.lines.append(f"| {what} | {outcome} | {time.perf_counter() - started:.0f} |")
        print(self.lines[-1], flush=True)

    def write(self) -> None:
        total = (time.perf_counter() - self.started) / 60
        self.path.write_text("\n".join([*self.lines, "", f"{total:.0f} minutes in all.", ""]), encoding="utf-8")


def killed(case: str, points: int, seed: int, folder: Path, data: list[str]) -> tuple[list[str], str]:
    folder.mkdir()
    found = trials(case, points, seed, folder, data)
    wrong = [
        f"{'+'.join(each['moments'])}: {', '.join(each['differences'][:3])}" for each in found if each["differences"]
    ]
    ends = Counter(end for each in found for end in each["ended"])
    kinds = Counter(moment.split(":")[0] for each in found for moment in each["moments"])
    asked = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return wrong, f"all equal bit for bit; {ends['killed']} killed, {ends['stopped']} stopped ({asked})"


def memory(folder: Path) -> tuple[list[str], str]:
    sizes = memory_of_a_long_run(folder)
    grown = sizes[-1] - sizes[19]
    said = f"{sizes[-1] / 2**20:.0f} MiB, {grown / 2**20:+.1f} MiB since the 20th epoch"
    return ([said] if grown > GROWTH or len(sizes) != 200 else []), said


def tests() -> tuple[list[str], str]:
    """All that `make test` leaves out."""
    words = ["-m", "slow"]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=REPOSITORY, capture_output=True, text=True)
    return ([done.stdout[-500:]] if done.returncode else []), done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20, help="runs of each case that are killed")
    parser.add_argument("--runs", type=int, default=50, help="short runs in a row")
    parser.add_argument("--without-tests", action="store_true", help="leave out pytest's slow ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "soak.md")
    given = parser.parse_args()
    prepare_process()
    table = Table(given.out.absolute(), " ".join(["python -m tests.soak", *sys.argv[1:]]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = make_data(folder / "data")
        for case in CASES:
            what = f"{case}: {given.points} runs killed or stopped at random moments, and gone on with"
            table.row(what, lambda case=case: killed(case, given.points, given.seed, folder / case, data))
        none = "all ended well"
        table.row(f"{given.runs} short runs in a row", lambda: (in_a_row(given.runs, folder, data), none))
        table.row("four runs at once on data not prepared yet", lambda: (at_once(4, folder, data), none))
        table.row("memory of 200 epochs on the digits", lambda: memory(folder))
        table.row("processes, locks, half-written files left", lambda: (left_over(folder), "none"))
        if not given.without_tests:
            table.row("pytest -m slow, proofs at full size", tests)
    table.write()
    sys.exit(int(table.failed))


if __name__ == "__main__":
    main()
