"""A training step of a Diagonal BiLSTM, time and memory: the careful common form against this project's engines.

`python -m benchmarks.step [--hidden 64 --layers 3 --batch 8]`; half a minute on two CPU cores. The common form,
`benchmarks/common_forms.py`, has the same weights, masked once before the first step, and forms all logits at once.
Products are as in training: on a GPU, TF32 in both forms. Memory is what one step adds, on a CPU to a process of its
own.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common_forms import CommonNetwork
from benchmarks.timing import Run, as_in_training, ratio, side_by_side, spread, where
from datamodules.spec import ImageSpec
from datamodules.tools import Arguments, device_here, whole_number
from lightning_modules.pixelrnn import DiagonalBiLSTM
from lightning_modules.pixelrnn.stack import sub_pixel_nats

SPEC = ImageSpec(channels=3, height=32, width=32, levels=256)
COMMON = "careful common form"


def make_step(form: str, precision: str, args: argparse.Namespace) -> Run:
    """One training step without the optimizer's."""
    as_in_training()
    engine = "auto" if form == COMMON else form
    network = DiagonalBiLSTM(SPEC, hidden=args.hidden, layers=args.layers, engine=engine).to(args.device)
    nats: Callable[[Tensor], Tensor] = network.nats
    if form == COMMON:
        network = CommonNetwork(network)
        nats = lambda images: sub_pixel_nats(network(images), images)  # noqa: E731
    images = torch.randint(0, SPEC.levels, (args.batch, *SPEC.shape), dtype=torch.uint8, device=args.device)

    def step() -> None:
        network.zero_grad()
        with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = nats(images).mean()
        loss.backward()

    return step


def peak_megabytes(form: str, precision: str, args: argparse.Namespace) -> float:
    """What a step adds at its peak; on the CPU meant for a fresh process."""
    step = make_step(form, precision, args)
    if args.device == "cuda":
        step()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = peak_resident()
    step()
    return peak_resident() - before


def peak_resident() -> float:
    """The most memory that this process has held so far, MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def in_fresh_process(run: Callable[[], float]) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run)


def main() -> None:
    parser = Arguments(description="A training step of a Diagonal BiLSTM, 32×32 RGB, 256 levels.")
    parser.add_argument("--hidden", type=whole_number, default=64)
    parser.add_argument("--layers", type=whole_number, default=3)
    parser.add_argument("--batch", type=whole_number, default=8)
    parser.add_argument("--rounds", type=whole_number, default=5)
    parser.add_argument("--device", type=device_here, default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    engines = ["triton"] if args.device == "cuda" else ["fused", "compiled"]
    forms = [(form, precision) for form in (COMMON, *engines) for precision in ("float32", "bfloat16")]
    times = side_by_side({" ".join(form): make_step(*form, args) for form in forms}, args.rounds)
    print(f"Diagonal BiLSTM, {args.layers} layers, h = {args.hidden}, batch {args.batch}, 32×32×3; {where()}\n")
    print("| form | precision | step, ms (min … max) | common form, float32, takes × as long | peak memory, MB |")
    print("|---|---|---:|---:|---:|")
    for form, precision in forms:
        name = f"{form} {precision}"
        compared = f"{ratio(times, f'{COMMON} float32', name):.2f}"
        peak = partial(peak_megabytes, form, precision, args)
        memory = peak() if args.device == "cuda" else in_fresh_process(peak)
        print(f"| {form} | {precision} | {spread(times[name])} | {compared} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
