"""How fast text is learned and generated, against the textbook's way, side by side in one process.

`python -m benchmarks.text [--hidden 512 --streams 32 --window 128]`; under a minute on one CPU core. Three rounds each:

- Training: the textbook's loop (a Dataset of overlapping windows, item by item through a DataLoader, zero state,
  float32) against this project's batches, each a slice, with carried state, in float32 and in bf16 autocast. Each round
  times one optimiser step of each, batch included.
- Generation: 100 texts of 1,000 characters as one batch against one by one; of one by one, a part of one text is timed
  and scaled.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import seconds, spread, where
from datamodules.spec import TextSpec
from datamodules.text.loader import Streams
from datamodules.tools import Arguments, whole_number
from lightning_modules.char_lm import CharGRU, CharLSTM
from lightning_modules.char_lm.generation import generate
from lightning_modules.char_lm.recurrent import RecurrentLM, detached

SPEC = TextSpec("".join(map(chr, range(32, 97))))  # 65 characters, as many as Tiny Shakespeare's
ROUNDS, TEXTS, LENGTH, PART = 3, 100, 1000, 200


class TextbookWindows(Dataset):
    """Every window of a text, one item each."""

    def __init__(self, codes: list[int], window: int):
        self.codes, self.window = codes, window

    def __len__(self) -> int:
        return len(self.codes) - self.window

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        chunk = self.codes[start : start + self.window + 1]
        return torch.tensor(chunk[:-1]), torch.tensor(chunk[1:])


def textbook(network: RecurrentLM, codes: np.ndarray, args: argparse.Namespace) -> Iterator[None]:
    """One optimiser step at each `next`."""
    loader = DataLoader(TextbookWindows(codes.tolist(), args.window), args.streams, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for inputs, targets in loader:
        logits, _ = network(inputs)
        step(optimizer, network, logits, targets)
        yield


def ours(network: RecurrentLM, codes: np.ndarray, args: argparse.Namespace, bf16: bool) -> Iterator[None]:
    """One optimiser step at each `next`."""
    optimizer, state = torch.optim.AdamW(network.parameters(), 1e-3), None
    for batch in Streams(codes, args.streams, args.window, seed=0):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits, state = network(batch.inputs, state if batch.carried else None)
        state = detached(state)
        step(optimizer, network, logits, batch.targets)
        yield


def step(optimizer: torch.optim.Optimizer, network: RecurrentLM, logits: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def row(name: str, rates: dict[str, list[float]]) -> str:
    """Medians with smallest and largest; the ratio is of each round's two, the last way to the first."""
    ways = list(rates.values())
    shown = [spread(way, scale=1) for way in ways]
    ratios = [f"{statistics.median(a / b for a, b in zip(way, ways[0], strict=True)):.2f}" for way in ways[1:]]
    return f"| {name} | {' | '.join(shown)} | {' · '.join(ratios)} |"


def training(network: type[RecurrentLM], args: argparse.Namespace) -> str:
    codes = np.random.default_rng(0).integers(0, 65, args.streams * args.window * (ROUNDS + 2))
    ways = {
        "textbook": textbook(network(SPEC, hidden=args.hidden), codes, args),
        "float32": ours(network(SPEC, hidden=args.hidden), codes, args, bf16=False),
        "bf16": ours(network(SPEC, hidden=args.hidden), codes, args, bf16=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        next(way)  # what only a first step costs
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(args.streams * args.window / seconds(lambda way=way: next(way)))
    return row(network.__name__, rates)


def generation(network: type[RecurrentLM], args: argparse.Namespace) -> str:
    made = network(SPEC, hidden=args.hidden).eval()
    prompts = torch.zeros(TEXTS, 1, dtype=torch.long)
    generate(made, prompts[:1], 10)
    rates: dict[str, list[float]] = {"one by one": [], "one batch": []}
    for _ in range(ROUNDS):
        rates["one by one"].append(PART / seconds(lambda: generate(made, prompts[:1], PART)))
        rates["one batch"].append(TEXTS * LENGTH / seconds(lambda: generate(made, prompts, LENGTH)))
    return row(network.__name__, rates)


def main() -> None:
    parser = Arguments(description="Characters per second, training and generating.")
    parser.add_argument("--hidden", type=whole_number, default=512)
    parser.add_argument("--streams", type=whole_number, default=32)
    parser.add_argument("--window", type=whole_number, default=128)
    args = parser.parse_args()
    print(f"Characters per second; one layer of {args.hidden}; {where()}\n")
    print(f"Training, batches of {args.streams} × {args.window}\n")
    print("| network | textbook, float32 | this project, float32 | this project, bf16 | ratios |")
    print("|---|---:|---:|---:|---:|")
    for network in (CharLSTM, CharGRU):
        print(training(network, args), flush=True)
    print(f"\nGenerating {TEXTS} texts of {LENGTH:,} characters\n")
    print("| network | one by one | one batch | ratio |\n|---|---:|---:|---:|")
    for network in (CharLSTM, CharGRU):
        print(generation(network, args), flush=True)


if __name__ == "__main__":
    main()
