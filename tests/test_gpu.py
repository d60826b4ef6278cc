"""`make gpu`: which rows a device runs, in what order, how they come out; without a device, in tiny commands."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from benchmarks import gpu
from benchmarks.gpu_rows import MOST, Row, lacks, ordered, read_rows, startable, words_of
from benchmarks.gpu_runs import Bench, Outcome, Process
from datamodules.errors import UsageError
from running.check import check_config
from running.composed import compose_config
from tests.commands import train_ended
from tests.conftest import REPOSITORY, run_here

ROWS = read_rows(REPOSITORY / "benchmarks/gpu.yaml")


def row(name: str, **more) -> Row:
    return Row(**{"command": "", "minutes": 1.0, "name": name, "memory": 4.0} | more)


# The file


@pytest.mark.parametrize("each", ROWS, ids=lambda each: each.name)
def test_every_command_composes(each):
    first = next((other for other in ROWS if other.name == each.after), None)
    words = [*shlex.split(first.command if first else ""), *shlex.split(each.command)]
    last = list({word.split("=")[0]: word for word in words}.values())  # given twice, the piece's own
    config = compose_config(last)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    check_config(config, choices.model, choices.task)
    assert each.name.split("/")[0] == choices.task
    assert each.data or "path" not in config.data  # what is not brought along ships with the packages
    if config.budget.minutes is not None:
        own = config.budget.minutes
        if first:
            before = compose_config(shlex.split(first.command))
            assert before.hydra.runtime.choices.scheduler == "warmup_stable_decay"
            own -= (1 - before.scheduler.decay) * before.budget.minutes
            assert 0 < own < config.budget.minutes
        assert own < each.minutes <= MOST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {command: a, minutes: 6, name: b}", "b takes 6 minutes, but a row takes 5 at most: cut it into pieces"),
        ("- {command: a, minutes: 1}", "a row has command, minutes and name"),
        ("- {command: a, minutes: 1, name: b, colour: red}", "may have others of"),
        ("- {command: a, minutes: soon, name: b}", "minutes of b is 'soon'"),
        ("- {command: a, minutes: 1, name: b}\n- {command: a, minutes: 1, name: b}", "two rows of the name b"),
        ("- {command: a, minutes: 1, name: b, after: c}", "b goes on from c, which is no row before it"),
        ("just words", "a row has command, minutes and name"),
        ("- {", "cannot be read as a list of rows"),
    ],
)
def test_a_row_that_is_none_is_one_sentence(text, said, tmp_path):
    (tmp_path / "gpu.yaml").write_text(text)
    with pytest.raises(UsageError) as refused:
        read_rows(tmp_path / "gpu.yaml")
    assert said in str(refused.value)


# Choice, order, packing


def names(rows: list[Row]) -> list[str]:
    return [each.name for each in rows]


def test_kept_rows_come_last_but_for_what_others_go_on_from():
    rows = [row("a"), row("b"), row("c", after="a"), row("d")]
    assert names(ordered(rows, {"b"}.__contains__, lambda name: False)) == ["a", "c", "d", "b"]
    assert names(ordered(rows, {"a"}.__contains__, lambda name: True)) == ["b", "c", "d", "a"]
    assert names(ordered(rows, {"a"}.__contains__, lambda name: False)) == ["a", "b", "c", "d"]
    assert names(ordered(rows, {"a", "c"}.__contains__, lambda name: False)) == ["b", "d", "a", "c"]


def test_side_by_side_goes_what_fits_in_memory_time_and_places():
    rows = [row("a"), row("large", memory=7.0), row("long", minutes=4.0), row("piece", after="a"), row("e"), row("f")]

    def chosen(running: list[Row], memory: float, seconds: float) -> str:
        return " ".join(names(startable(rows, running, memory, seconds, lambda each: each.after is None)))

    assert chosen([], 80, 600) == "a large long e", "four at once"
    assert chosen([], 10, 600) == "a long", "what is too large now is passed by"
    assert chosen([row("x", memory=8.0)], 20, 600) == "a large"
    assert chosen([], 80, 61) == "a large e f"
    assert chosen([], 80, 59) == ""


def test_what_a_row_lacks_is_said_in_one_line():
    def missing(each: Row) -> None:
        raise UsageError("MNIST was not found.")

    assert lacks(row("a"), 10, lambda each: None) is None
    assert lacks(row("a", data=("mnist",)), 10, missing) == "no mnist: MNIST was not found."
    assert lacks(row("a", packages=("nowhere_to_be_found", "os")), 10, missing) == "nowhere_to_be_found not installed"
    assert lacks(row("a", memory=40.0), 23.6, missing) == "it takes 40 GiB, and the device has 24"


def test_a_row_is_a_run_of_its_own_or_one_that_goes_on(tmp_path):
    each = row("a", command="experiment=b 'stages=[fit, test]'")
    assert words_of(each, tmp_path, None) == ["experiment=b", "stages=[fit, test]", f"hydra.run.dir={tmp_path}"]
    assert words_of(each, tmp_path, tmp_path / "p.ckpt")[-1] == f"ckpt_path={tmp_path / 'p.ckpt'}"


# How rows come out


class Device:
    """A fake one: a row's command is Python's, its room is counted."""

    def __init__(self, folder: Path):
        self.folder, self.memory, self.held, self.most = folder, 10.0, {}, 0.0
        self.order: list[str] = []

    def start(self, each: Row) -> Process:
        self.held = {other: process for other, process in self.held.items() if process.popen.poll() is None}
        words = [sys.executable, "-S", "-c", each.command]
        self.held[each] = Process(words, self.folder / f"{each.name}.log", self.folder)
        self.most = max(self.most, sum(other.memory for other in self.held))
        self.order.append(each.name)
        return self.held[each]

    def run(self, rows: list[Row], seconds: float = 120, keep=lambda each: "kept") -> dict[str, Outcome]:
        told: list[Outcome] = []
        ready = lambda each: (self.folder / each.after).exists()  # noqa: E731
        outcomes = Bench(self.start, keep, ready, told.append, pause=0.01).run(rows, self.memory, seconds)
        assert outcomes == told
        return {outcome.what: outcome for outcome in outcomes}


@pytest.fixture
def device(tmp_path, monkeypatch) -> Device:
    monkeypatch.setattr("benchmarks.gpu_runs.GRACE", 0.3)
    return Device(tmp_path)


SLEEP = "import time; time.sleep(60)"


def test_rows_run_side_by_side_and_no_failure_ends_the_others(device):
    rows = [row("a", command="open('a', 'w')"), row("broken", command="raise ValueError('no such thing')")]
    rows += [row("b", after="a"), row("c", after="broken"), row("d", command="print('well')"), row("e", memory=9.0)]
    found = device.run(rows)
    assert device.order[:2] == ["a", "broken"] and device.order.index("b") > 1 and "c" not in device.order
    assert {name: outcome.said for name, outcome in found.items()} == {
        "a": "kept", "b": "kept", "d": "kept", "e": "kept",
        "broken": "failed: ValueError: no such thing",
        "c": "left out: broken has no plateau.ckpt to go on from",
    }  # fmt: skip
    assert 4 < device.most <= 10


def test_what_takes_too_long_is_ended_and_what_does_not_fit_left_out(device):
    polite = f"import signal, sys\nsignal.signal(15, lambda *_: sys.exit('Stopped.'))\nprint('on', flush=True)\n{SLEEP}"
    stubborn = f"import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('never', flush=True)\n{SLEEP}"
    rows = [row("polite", command=polite, minutes=0.02), row("stubborn", command=stubborn, minutes=0.02)]
    found = device.run([*rows, row("long", minutes=3.0)], seconds=8)
    assert found["polite"].said == "ended after its time: Stopped."
    assert found["stubborn"].said == "ended after its time: never"
    assert found["long"] == Outcome("long", "left out: no time for its 3 minutes")
    assert all(process.popen.poll() is not None for process in device.held.values())


def test_the_time_is_the_rows_end_too_and_what_cannot_be_kept_is_said(device):
    def keep(each: Row) -> str:
        raise UsageError("it holds no figures")

    slow = row("slow", command=SLEEP, minutes=0.009)
    started = time.monotonic()
    found = device.run([slow, row("quick", command="", minutes=0.005)], seconds=0.6, keep=keep)
    assert time.monotonic() - started < 5
    assert found["slow"].said.startswith("ended after its time")
    assert found["quick"].said == "not kept: it holds no figures"


def test_an_interrupted_bench_leaves_nothing_running(device):
    def interrupt() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        device.run([row("a", command=SLEEP)])
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert all(process.popen.poll() is not None for process in device.held.values())


# The command


def test_without_a_device_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == "There is no CUDA device here, and all of `make gpu` needs one: nothing was run."
    with pytest.raises(SystemExit, match="it is 'soon', but it must be a whole number"):
        gpu.main(["--minutes", "soon"])


def test_with_a_device_come_the_checks_then_the_rows(monkeypatch, tmp_path):
    done = []
    fake = {"is_available": lambda: True, "mem_get_info": lambda: (20 * 2**30, 0), "get_device_name": lambda: "a GPU"}
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(gpu, "listen", lambda: None)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "check", lambda name, words, seconds, *_: done.append((name, seconds)))
    monkeypatch.setattr(gpu, "run_rows", lambda rows, seconds, memory, *_: done.append((len(rows), seconds, memory)))
    monkeypatch.setattr(gpu, "write_results", done.append)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "0")
    assert str(tmp_path / "gpu.md") in gpu.main(["--minutes", "1"])
    assert [each[0] for each in done[:-1]] == [
        "tests on a GPU", "benchmarks.step", "benchmarks.recurrence", "benchmarks.loop",
        "benchmarks.loop, 1,024 images", len(ROWS),
    ]  # fmt: skip
    assert all(50 < each[1] <= 60 for each in done[:-1]) and done[-2][2] == 20 and done[-1] == tmp_path
    assert all((REPOSITORY / word).is_file() for word in gpu.TESTS if word.endswith(".py"))


def test_make_takes_the_python_it_is_given():
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "gpu", "PYTHON=a-python", "MINUTES=7"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "a-python -m benchmarks.gpu --minutes 7\n", "no virtual environment, no installation"


def test_the_table_and_the_checks(tmp_path):
    table = gpu.Table(tmp_path / "gpu.md", "`make gpu`")
    gpu.check("benchmarks.well", ["-c", "print('| a |')"], 20, (), table, tmp_path)
    gpu.check("broken", ["-c", "1 / 0"], 20, (), table, tmp_path)
    gpu.check("slow", ["-c", f"print('begun', flush=True); {SLEEP}"], 0.5, (), table, tmp_path)
    gpu.check("absent", [], 20, ("nowhere_to_be_found",), table, tmp_path)
    gpu.check("late", [], -1, (), table, tmp_path)
    text = (tmp_path / "gpu.md").read_text()
    assert (
        "| broken | failed: ZeroDivisionError: division by zero |" in text and "\n\n## benchmarks.well\n\n| a |" in text
    )
    assert "| benchmarks.well | done | 0.0 |" in text and "| slow | ended after its time: begun |" in text
    assert "| absent | left out: nowhere_to_be_found not installed | |" in text and "left out: no time" in text


def test_rows_are_trained_gone_on_with_and_kept(tmp_path, monkeypatch):
    """The whole of it, with train.py called in place of started."""
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setattr(gpu, name, tmp_path / name.lower())

    class Called(Process):
        def __init__(self, words, log, folder, **environment):
            log.parent.mkdir(parents=True, exist_ok=True)
            self.log, self.began, self.over = log, time.monotonic(), False
            done = train_ended(words[2:], tmp_path, **environment)
            log.write_text(done.stderr)
            self.popen = SimpleNamespace(poll=lambda: done.status, returncode=done.status)

    monkeypatch.setattr(gpu, "Process", Called)
    small = "model=pixelcnn model.hidden=4 model.layers=1 task.module.snapshots=0 trainer.limit_val_batches=1"
    how = f"{small} scheduler=warmup_stable_decay trainer.limit_test_batches=1 stages=[fit,test]"
    rows = [
        row("pixelrnn/a", command=f"{how} trainer.max_steps=10"),
        row("none", command="task=char_lm data=shakespeare paths.data=no"),
    ]
    rows += [row("pixelrnn/b", command="trainer.max_steps=20 stages=[fit,test]", after="pixelrnn/a", weights=True)]
    table = gpu.Table(tmp_path / "gpu.md", "")
    gpu.run_rows(rows, 300, 80, "now", table)
    said = {outcome.what: outcome.said for outcome in table.outcomes}
    assert said["pixelrnn/a"].startswith("test/bits_per_dim ") and "10 steps; kept as results/" in said["pixelrnn/a"]
    assert "20 steps; kept as results/pixelrnn/b" in said["pixelrnn/b"], said
    assert said["none"].startswith("left out: ") and "Tiny Shakespeare was not found" in said["none"]
    kept = OmegaConf.load(tmp_path / "results/pixelrnn/b/config.yaml")
    assert kept.trainer.max_steps == 20 and "hydra.run.dir" not in kept.provenance.command
    run_here(
        ["stages=[sample]", f"ckpt_path={tmp_path}/results/pixelrnn/b/best.ckpt", "task.module.samples=2"],
        tmp_path / "s",
    )
