"""How fast images are drawn: the incremental sampler against one pass of the full network for every sub-pixel.

`python -m benchmarks.sampling [--hidden 32 --layers 2 --images 16]`; half a minute on one CPU core. Both are timed
side by side in this process, three times; the full pass is timed alone and multiplied by the 3,072 sub-pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM, PixelCNN, PixelNet, RowLSTM
from lightning_modules.pixelrnn.sampling import sample
from running.folder import machine

SPEC = ImageSpec(channels=3, height=32, width=32, levels=256)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Incremental sampling against full passes, 32×32 RGB.")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--images", type=int, default=16)
    args = parser.parse_args()
    print(f"{args.images} images, h = {args.hidden}, {args.layers} layers; {machine()}; torch {torch.__version__}\n")
    print("| network | full passes, s | incremental, s (min … max) | ratio |\n|---|---:|---:|---:|")
    images = torch.zeros(args.images, *SPEC.shape, dtype=torch.uint8)
    for network in (PixelCNN, RowLSTM, DiagonalBiLSTM, PixelNet):
        made = network(SPEC, hidden=args.hidden, layers=args.layers).eval()
        full, incremental = [], []
        with torch.no_grad():
            made(images)
            for _ in range(3):
                full.append(seconds(lambda made=made: made(images)) * SPEC.dims)
                incremental.append(seconds(lambda made=made: sample(made, args.images)))
        ratio = statistics.median(f / i for f, i in zip(full, incremental, strict=True))
        spread = f"{statistics.median(incremental):.2f} ({min(incremental):.2f} … {max(incremental):.2f})"
        print(f"| {network.__name__} | {statistics.median(full):,.0f} | {spread} | {ratio:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
