"""How fast sentences are found: a beam over a batch of images against one image after the other, scenes of 64×64.

`python -m benchmarks.beams [--width 3 --images 100]`; half a minute on two CPU cores. Random weights seldom end a
sentence: each is as long as it may be, so that trained networks are faster.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.timing import ratio, side_by_side, spread, where
from datamodules.captions.words import grammar_vocabulary, longest_sentence
from datamodules.spec import CaptionSpec
from datamodules.tools import Arguments, whole_number
from lightning_modules.captioning import CaptionTransformer, ShowAttendTell
from lightning_modules.captioning.decoding import beam_search

LANGUAGES = ("en",)
SPEC = CaptionSpec(3, 64, 64, 256, grammar_vocabulary(LANGUAGES), LANGUAGES, longest_sentence(LANGUAGES))
NETWORKS = {network.__name__: network for network in (ShowAttendTell, CaptionTransformer)}


def main() -> None:
    parser = Arguments(description="Beam search batched and one by one, scenes of 64×64.")
    parser.add_argument("--width", type=whole_number, default=3)
    parser.add_argument("--images", type=whole_number, default=100)
    parser.add_argument("--rounds", type=whole_number, default=3)
    args = parser.parse_args()
    print(f"{args.images} images, a beam of {args.width}; {where()}\n")
    print(
        "| network | one by one, s | batched, s (min … max) | ratio | sentences a second |\n|---|---:|---:|---:|---:|"
    )
    images = torch.randint(0, 256, (args.images, *SPEC.shape), dtype=torch.uint8)
    starts = torch.full((args.images,), SPEC.start(LANGUAGES[0]))
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make(SPEC).eval()

        def search(rows: slice, network=network) -> None:
            beam_search(network, network.encoder(images[rows]), starts[rows], args.width)

        runs = {
            "alone": lambda search=search: [search(slice(row, row + 1)) for row in range(args.images)],
            "batched": lambda search=search: search(slice(None)),
        }
        with torch.no_grad():
            times = side_by_side(runs, args.rounds)
        alone, together = (statistics.median(times[way]) for way in runs)
        faster, speed = ratio(times, "alone", "batched"), args.images / together
        print(f"| {name} | {alone:.1f} | {spread(times['batched'], 1, 2)} | {faster:.0f} | {speed:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
