"""What every benchmark shares: timing side by side, and the machine named."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from running.memory import keep_freed_memory
from running.provenance import machine

Run = Callable[[], object]


def as_in_training() -> None:
    """Products and memory as training has them (`running.run`), in every form: on a GPU TF32, cuDNN's too."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    if not torch.cuda.is_available():
        keep_freed_memory()


def seconds(run: Run) -> float:
    """Wall clock of one call, the GPU's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def side_by_side(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, `rounds` times in turn after one uncounted: what slows one slows its neighbours."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times as long `slow` takes: the median over rounds."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def spread(values: list[float], scale: float = 1e3, digits: int = 0) -> str:
    """`median (min … max)`, in milliseconds unless `scale` says otherwise."""
    shown = (statistics.median(values), min(values), max(values))
    middle, least, most = (f"{scale * value:,.{digits}f}" for value in shown)
    return f"{middle} ({least} … {most})"


def where() -> str:
    """The machine and the versions, for a table's heading."""
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{machine()}{gpu}; {torch.get_num_threads()} threads; torch {torch.__version__}"


PRODUCTS = 20 * 2 * 2 * 512**3  # floating-point operations of `products`


def products(dtype: torch.dtype, device: str = "cpu") -> Run:
    """Matrix products of these layers' sizes and nothing else."""
    a, b, out = (torch.randn(2, 512, 512, device=device).to(dtype) for _ in range(3))
    return lambda: [torch.bmm(a, b, out=out) for _ in range(20)]


def matrix_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations per second that this machine reaches in a product of these layers' sizes."""
    return PRODUCTS / statistics.median(side_by_side({"bmm": products(dtype, device)}, 5)["bmm"])
