"""Commands in processes of their own, forked from one that has imported torch: each begins at once, not in 6 s."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.forked_imports"])
REPOSITORY = Path(__file__).resolve().parent.parent


class Command:
    """`python train.py WORDS` in `folder`, at work; `environment` beside this process's.

    `program` is another module whose `main` is run, or a function of the words; `script` what sys.argv[0] is.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        program: str | Callable[[], object] = "train",
        script: Path = REPOSITORY / "train.py",
        **environment: str,
    ):
        self.output = [folder.with_name(f"{folder.name}.{time.monotonic_ns()}.{name}") for name in ("out", "err")]
        surroundings = {**os.environ, "ETUDES_CACHE": str(folder / "cache"), **environment}
        given = (program, [str(script), *words], str(folder), surroundings, [str(path) for path in self.output])
        self.process = CONTEXT.Process(target=run_command, args=given)
        self.process.start()
        self.pid = self.process.pid

    def running(self) -> bool:
        return self.process.is_alive()

    def wait_for(self, path: Path, within: float = 120) -> None:
        """Waits until there is such a file."""
        deadline = time.monotonic() + within
        while not path.exists():
            said = self.output[1].read_text()[-3000:] if self.output[1].exists() else ""
            if time.monotonic() >= deadline or not self.running():
                self.process.kill()
                raise AssertionError(f"no {path.name}: {said}")
            time.sleep(0.02)

    def ended(self, within: float = 240) -> subprocess.CompletedProcess:
        """Waits for the end; what it left on stdout and stderr."""
        self.process.join(within)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"it did not end: {self.output[1].read_text()[-3000:]}")
        stdout, stderr = (path.read_text(encoding="utf-8") for path in self.output)
        return subprocess.CompletedProcess([], self.process.exitcode, stdout, stderr)


def run_command(
    program: str | Callable[[], object],
    argv: list[str],
    folder: str,
    environment: dict[str, str],
    output: list[str],
) -> None:
    """What the forked process does: it becomes the command."""
    import datasets
    import huggingface_hub

    for number, path in enumerate(output, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment, HYDRA_MAIN_MODULE="__main__")  # conf/ then lies beside train.py
    offline = environment.get("HF_HUB_OFFLINE") == "1"  # both read it when they were imported
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = offline
    os.chdir(folder)
    sys.argv = argv
    sys.modules["__main__"].__spec__ = None  # Lightning starts further processes as this one seems to have been
    (importlib.import_module(program).main if isinstance(program, str) else program)()


def train(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """How `python train.py WORDS` ends in `folder`, and what it prints."""
    return Command(words, folder, **environment).ended()


def train_as_two(
    *words: str, folder: Path, program: str | Callable[[], object] = "train", **environment: str
) -> list[subprocess.CompletedProcess]:
    """How the same command ends in two processes of one run, which find each other as those of a cluster do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    stamp = {"ETUDES_STAMP": "two", "OMP_NUM_THREADS": "1"}
    surroundings = {**place, **stamp, **environment}
    both = [Command(words, folder, program, **surroundings, LOCAL_RANK=str(rank)) for rank in range(2)]
    return [command.ended() for command in both]
