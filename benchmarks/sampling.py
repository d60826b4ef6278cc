"""How fast images are drawn: the incremental sampler against one pass of the full network for every sub-pixel.

`python -m benchmarks.sampling [--hidden 32 --layers 2 --images 16]`; half a minute on two CPU cores. Both are timed
side by side in this process, three times; the full pass is timed alone and multiplied by the 3,072 sub-pixels.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.timing import ratio, side_by_side, spread, where
from datamodules.spec import ImageSpec
from datamodules.tools import Arguments, whole_number
from lightning_modules.pixelrnn import DiagonalBiLSTM, PixelCNN, PixelNet, RowLSTM
from lightning_modules.pixelrnn.sampling import sample

SPEC = ImageSpec(channels=3, height=32, width=32, levels=256)
NETWORKS = {network.__name__: network for network in (PixelCNN, RowLSTM, DiagonalBiLSTM, PixelNet)}


def main() -> None:
    parser = Arguments(description="Incremental sampling against full passes, 32×32 RGB.")
    parser.add_argument("--hidden", type=whole_number, default=32)
    parser.add_argument("--layers", type=whole_number, default=2)
    parser.add_argument("--images", type=whole_number, default=16)
    parser.add_argument("--rounds", type=whole_number, default=3)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    args = parser.parse_args()
    print(f"{args.images} images of 32×32×3, h = {args.hidden}, {args.layers} layers; {where()}\n")
    print("| network | full passes, s | incremental, s (min … max) | ratio |\n|---|---:|---:|---:|")
    images = torch.zeros(args.images, *SPEC.shape, dtype=torch.uint8)
    for name in args.networks:
        made = NETWORKS[name](SPEC, hidden=args.hidden, layers=args.layers).eval()
        runs = {"pass": lambda made=made: made(images), "incremental": lambda made=made: sample(made, args.images)}
        with torch.no_grad():
            times = side_by_side(runs, args.rounds)
        full = statistics.median(times["pass"]) * SPEC.dims
        faster = SPEC.dims * ratio(times, "pass", "incremental")
        print(f"| {name} | {full:,.0f} | {spread(times['incremental'], 1, 2)} | {faster:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
