"""How fast an epoch of CIFAR-10 is: this project's batches, memory format and precision against the usual loop.

`python -m benchmarks.data [--filters 64 --depth 7]`; about a minute on two CPU cores; needs no data: the images are
random. The usual loop is a torchvision-style Dataset with the transforms of each image, a DataLoader with two workers,
and float32 with contiguous maps; each row below it changes one thing more. All are timed in turn in this process,
three times, over a few batches each; ratios are of neighbours in time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import spread, where
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.loader import BatchLoader
from datamodules.spec import ImageSpec
from datamodules.tools import Arguments, whole_number
from lightning_modules.classification import CNN
from running.precision import resolve_precision

BATCH, PADDING, EPOCH, ROUNDS = 128, 4, 45_000, 3
Batches = Iterator[tuple[Tensor, Tensor]]


class UsualDataset(Dataset):
    """As torchvision's CIFAR10: an array of (H, W, C) images, each made a PIL image and transformed when asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        from torchvision import transforms

        self.images, self.labels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[2:], padding=PADDING, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[row])), int(self.labels[row])


def endless(loader: Iterable) -> Batches:
    while True:
        yield from loader


def training_step(levels: int, channels_last: bool, bf16: bool, filters: int, depth: int) -> Callable[..., None]:
    """One step of Adam on a batch."""
    torch.manual_seed(0)
    spec = ImageSpec(3, 32, 32, levels=levels, classes=10)
    network = CNN(spec, filters=filters, depth=depth, channels_last=channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def speed(batches: Batches, step: Callable[..., None], count: int) -> float:
    """Images per second over `count` batches, after one that does not count."""
    step(*next(batches))
    started = time.perf_counter()
    for _ in range(count):
        step(*next(batches))
    return count * BATCH / (time.perf_counter() - started)


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the rounds' ratios."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)], scale=1, digits=2)


def main() -> None:
    parser = Arguments(description="An epoch of CIFAR-10 against the usual training loop, on the CPU.")
    parser.add_argument("--filters", type=whole_number, default=64)
    parser.add_argument("--depth", type=whole_number, default=7)
    parser.add_argument("--batches", type=whole_number, default=3, help="timed in each round (default: %(default)s)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5120, 3, 32, 32), np.uint8), rng.integers(0, 10, 5120)
    workers = DataLoader(UsualDataset(images, labels), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    usual = endless(workers)
    ours = endless(BatchLoader(images, labels, BATCH, seed=0, augment=FlipAndCrop("random", PADDING, 0)))

    precision, why = resolve_precision("auto", "cpu")
    size = {"filters": args.filters, "depth": args.depth}
    # The usual transforms scale images to [0, 1] already: to the network they have two levels.
    loops = {
        "Dataset, DataLoader(num_workers=2), float32, contiguous": (usual, training_step(2, False, False, **size)),
        "batches as slices": (ours, training_step(256, False, False, **size)),
        "… and channels last": (ours, training_step(256, True, False, **size)),
    }
    if precision == "bf16-mixed":
        loops["… and bf16"] = (ours, training_step(256, True, True, **size))
    found: dict[str, list[float]] = {name: [] for name in loops}
    alone: dict[str, list[float]] = {"usual": [], "ours": []}
    for _ in range(ROUNDS):
        for name, (batches, step) in loops.items():
            found[name].append(speed(batches, step, args.batches))
        for name, batches in {"usual": usual, "ours": ours}.items():
            alone[name].append(speed(batches, lambda images, labels: None, 20))

    print(f"batches of {BATCH}, filters {args.filters}, depth {args.depth}; {where()}")
    print(f"precision=auto is {precision} here: {why}\n")
    print("| training loop | images/s | epoch, s | × the usual | × the row above | batches alone, images/s |")
    print("|---|---:|---:|---:|---:|---:|")
    base = before = next(iter(found.values()))
    for number, (name, speeds) in enumerate(found.items()):
        batches = [spread(speeds, scale=1) for speeds in alone.values()][number] if number < 2 else ""
        seconds = EPOCH / statistics.median(speeds)
        cells = [name, spread(speeds, scale=1), f"{seconds:,.0f}", ratio(speeds, base), ratio(speeds, before), batches]
        print(f"| {' | '.join(cells)} |")
        before = speeds


if __name__ == "__main__":
    main()
