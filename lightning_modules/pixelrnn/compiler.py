"""A C++ file as a library that ctypes loads: compiled once on a machine, by one command, without torch's headers."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from datamodules.files import whole_file

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
log = logging.getLogger(__name__)


class CannotCompile(Exception):
    """No library can be had here; the message says why, in a few words."""


@lru_cache
def library(source: Path) -> ctypes.CDLL:
    """The library of a C++ file, compiled where none of this source, compiler and processor is kept.

    It is kept in the user's own cache, not in `paths.cache`: what is loaded from there is run. OpenMP's library is
    found by its name, so that the one that torch has loaded serves both, with one set of threads.

    Raises:
        CannotCompile: there is no compiler, or it fails, or nothing can be written.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise CannotCompile("no g++ here")
    flags = [*FLAGS, "-mprefer-vector-width=512"] if platform.machine() == "x86_64" else FLAGS
    key = "\n".join([source.read_text(), *flags, version(compiler), processor()])
    file = cache() / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    log.info("compiling %s, once on this machine (some seconds) …", source.name)
                    with whole_file(file) as unfinished:
                        command = [compiler, *flags, str(source), "-o", str(unfinished)]
                        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return ctypes.CDLL(str(file))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise CannotCompile(f"g++ fails: {said[0] if said else error.returncode}") from error
    except Exception as error:  # a disk that is full or read-only, a library of another system: all else works without
        raise CannotCompile(str(error)) from error


def unavailable(source: Path) -> str | None:
    """Why a C++ file's library cannot be had, in a few words; None where it can. Compiles where need be."""
    try:
        library(source)
    except CannotCompile as error:
        return str(error)
    return None


def cache() -> Path:
    """Where libraries are kept: `$XDG_CACHE_HOME/etudes`, usually ~/.cache/etudes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "etudes"


def version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotCompile(f"g++ does not start: {error}") from error


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What -march=native depends on."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return "\n".join([platform.machine(), *told])
