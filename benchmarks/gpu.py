"""All that only a GPU can do, within a time: `python -m benchmarks.gpu [--minutes 12]`, which `make gpu` runs.

The tests that need one and the benchmarks of steps, recurrences and loops on the device, alone; then the rows of
benchmarks/gpu.yaml, side by side as the device has room. Each run that ends well is kept under results/, as `python -m
reporting.results` keeps it; results/gpu.md says how everything came out. Nothing of it needs a network. Runs lie under
runs/gpu/.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu_rows import AT_ONCE, Row, lacks, ordered, read_rows, words_of
from benchmarks.gpu_runs import Bench, Outcome, Process
from datamodules.errors import UsageError
from datamodules.tools import Arguments, run_tool, whole_number
from reporting.folder import REPOSITORY, monitored, read_json, read_run
from reporting.report import write_text
from reporting.results.keep import keep
from reporting.results.page import write_results
from running.stopped import Stopped, listen

RESULTS, RUNS = REPOSITORY / "results", REPOSITORY / "runs/gpu"
TESTS = ["-m", "pytest", "--noconftest", "-m", "slow or not slow", "-k", "on_a_gpu", "tests/pixelrnn/test_triton.py"]
TESTS += ["tests/running/test_fused.py", "tests/datamodules/images/test_on_device.py"]
# A loop that seldom waits for the device, in small and in large batches.
LOOP = "experiment=cnn_record fused=true trainer.log_every_n_steps=50 data.batch_size="
# What comes first, alone on the device: a name, Python's words, minutes, and the packages it needs.
CHECKS = [
    ("tests on a GPU", TESTS, 1.5, ("pytest", "triton")),
    ("benchmarks.step", ["-m", "benchmarks.step", "--hidden", "64", "--layers", "6", "--batch", "64"], 1, ()),
    ("benchmarks.recurrence", ["-m", "benchmarks.recurrence"], 1, ()),
    ("benchmarks.loop", ["-m", "benchmarks.loop", "--words", f"{LOOP}128"], 1, ()),
    ("benchmarks.loop, 1,024 images", ["-m", "benchmarks.loop", "--words", f"{LOOP}1024"], 1, ()),
]
NONE = "There is no CUDA device here, and all of `make gpu` needs one: nothing was run."


class Table:
    """results/gpu.md, written anew whenever something has come out."""

    def __init__(self, path: Path, heading: str):
        self.path, self.heading = path, heading
        self.outcomes: list[Outcome] = []
        self.said: dict[str, str] = {}  # what the benchmarks printed

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        print(f"{outcome.what}: {outcome.said}", flush=True)
        write_text(self.path, self.text())

    def text(self) -> str:
        lines = ["# On a GPU", "", self.heading, "", "| what | how it came out | minutes |", "|---|---|---:|"]
        for what, said, minutes in self.outcomes:
            cell = " ".join(said.replace("|", "/").split())
            lines.append(f"| {what} | {cell} | {minutes:.1f} |" if minutes else f"| {what} | {cell} | |")
        for name, text in self.said.items():
            lines += ["", f"## {name}", "", text.strip()]
        return "\n".join(lines) + "\n"


def check(name: str, words: Sequence[str], seconds: float, needs: Sequence[str], table: Table, logs: Path) -> None:
    """One of CHECKS, within so many seconds; a benchmark's table goes into the summary."""
    if missing := [package for package in needs if find_spec(package) is None]:
        table.add(Outcome(name, f"left out: {', '.join(missing)} not installed"))
        return
    if seconds <= 0:
        table.add(Outcome(name, "left out: no time"))
        return
    process = Process([sys.executable, *words], logs / f"{name.replace(' ', '_')}.log", REPOSITORY, **offline())
    try:
        while process.popen.poll() is None and 60 * process.minutes < seconds:
            time.sleep(0.1)
    finally:
        process.end()
    said = process.log.read_text(encoding="utf-8", errors="replace")
    if process.popen.returncode == 0 and "benchmarks" in name:
        table.said[name] = said
    well = "done" if "benchmarks" in name else process.last_line()
    late = 60 * process.minutes >= seconds
    failed = f"{'ended after its time' if late else 'failed'}: {process.last_line()}"
    table.add(Outcome(name, well if process.popen.returncode == 0 else failed, process.minutes))


def offline() -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"}


def prepare(row: Row) -> None:
    """Decodes the data that a row is trained on; raises UsageError where they are missing."""
    if row.after is None:
        prepare_data(tuple(words_of(row, RUNS, None)))


@cache
def prepare_data(words: tuple[str, ...]) -> None:
    from hydra.utils import instantiate

    from running.composed import compose_config

    instantiate(compose_config(words).data).prepare_data()


def plateau_of(name: str) -> Path | None:
    """The newest plateau of a row's runs."""
    found = list(RUNS.glob(f"*/{name}/checkpoints/plateau.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def folder_of(row: Row, stamp: str) -> Path:
    """Where a row's run lies; of one that goes on, the run's own folder."""
    plateau = plateau_of(row.after) if row.after else None
    return plateau.parent.parent if plateau else RUNS / stamp / row.name


def start(row: Row, stamp: str) -> Process:
    plateau = plateau_of(row.after) if row.after else None
    words = [sys.executable, "train.py", *words_of(row, folder_of(row, stamp), plateau)]
    threads = max(1, (os.cpu_count() or 1) // AT_ONCE)
    log = RUNS / stamp / f"{row.name}.log"
    return Process(words, log, REPOSITORY, OMP_NUM_THREADS=str(threads), **offline())


def keep_run(row: Row, folder: Path, results: Path) -> str:
    """Keeps a run that ended well, unless a better one is kept under its name; says its monitored figure, on test data
    where it was tested."""
    config, metrics = read_run(folder)
    watched, mode = monitored(config)
    before, now = read_json(results / row.name / "metrics.json").get(watched), metrics[watched]
    if before is not None and (before > now if mode == "max" else before < now):
        return f"{watched} {now:.4f}; results/{row.name} stays, which has {before:.4f}"
    there = [name for name in row.figures if (folder / "figures" / name).is_file()]
    keep(folder, results / row.name, there, row.weights)
    name = watched.replace("val/", "test/") if watched.replace("val/", "test/") in metrics else watched
    return f"{name} {metrics[name]:.4f}, {metrics['steps']:,} steps; kept as results/{row.name}"


def run_rows(rows: Sequence[Row], seconds: float, memory: float, stamp: str, table: Table) -> None:
    """The rows that can run here, until the time is spent."""
    until, able = time.monotonic() + seconds, []
    for row in ordered(
        rows, lambda name: (RESULTS / name / "metrics.json").exists(), lambda name: bool(plateau_of(name))
    ):
        if why := lacks(row, memory, prepare):
            table.add(Outcome(row.name, f"left out: {why}"))
        else:
            able.append(row)
    places: dict[str, Path] = {}  # where each row's run lies: a plateau may be newer when it ends

    def begin(row: Row) -> Process:
        places[row.name] = folder_of(row, stamp)
        return start(row, stamp)

    bench = Bench(
        begin,
        lambda row: keep_run(row, places[row.name], RESULTS),
        lambda row: plateau_of(row.after) is not None,
        table.add,
    )
    bench.run(able, memory, until - time.monotonic())


def main(words: Sequence[str]) -> str:
    parser = Arguments(prog="python -m benchmarks.gpu", description="All that only a GPU can do, within a time.")
    parser.add_argument("--minutes", type=whole_number, default=12, help="of everything")
    args = parser.parse_args(words)
    try:
        import torch
    except ImportError:
        raise UsageError("This Python has no torch: make gpu PYTHON=… takes one that has.") from None
    if not torch.cuda.is_available():
        return NONE
    from running.provenance import git_commit, machine

    listen()  # a signal then ends what runs, too
    os.environ.update(offline())  # for the data, before `datasets` is imported
    until, stamp = time.monotonic() + 60 * args.minutes, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    heading = (
        f"`make gpu MINUTES={args.minutes}`, commit {git_commit(RESULTS)}, {machine()}, torch {torch.__version__}."
    )
    table = Table(RESULTS / "gpu.md", heading)
    rows = read_rows(REPOSITORY / "benchmarks/gpu.yaml")
    try:
        for name, words_, minutes, needs in CHECKS:
            check(name, words_, min(60 * minutes, until - time.monotonic()), needs, table, RUNS / stamp)
        run_rows(rows, until - time.monotonic(), torch.cuda.mem_get_info()[0] / 2**30, stamp, table)
    except Stopped as end:
        write_results(RESULTS)
        print(f"Stopped; {table.path} says what came out until then.", file=sys.stderr)
        sys.exit(end.status)
    write_results(RESULTS)
    return f"{table.path}, and RESULTS.md with what was kept"


if __name__ == "__main__":
    run_tool(main)
