"""Two domains side by side: a source whose labels train, and a target whose labels only test."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.loader import ArrayLoader, Arrays, BatchLoader, EpochOrder
from datamodules.spec import ImageSpec

DOMAINS = SOURCE, TARGET = "source", "target"
KINDS = ("train", "val", "test")
APART = 2**32  # between the seeds of both orders: above every seed, so that no run's target order is another's source


class PairBatch(NamedTuple):
    """Images uint8 (B, C, H, W) of both domains, and the source's labels int64 (B,); the target has none.

    `rows` int64 (B,) says which of the target's training images they are.
    """

    source: Tensor
    labels: Tensor
    target: Tensor
    rows: Tensor


class Unlabelled(NamedTuple):
    """Images uint8 (B, C, H, W) without labels, and which of their split they are, int64 (B,)."""

    images: Tensor
    rows: Tensor


def unlabelled(arrays: Arrays, rows: np.ndarray, epoch: int) -> Unlabelled:
    return Unlabelled(torch.from_numpy(arrays[0]), torch.from_numpy(rows.astype(np.int64)))


class PairOrder:
    """Two orders that go on together: `sampler` of the pair loader, for Lightning's `set_epoch`.

    An epoch goes through the longer domain once. Each domain is an endless stream of permutations, each drawn from the
    domain's seed and its own pass, so that the shorter one begins anew when it is at an end, in a new order.
    """

    def __init__(self, sizes: tuple[int, int], seed: int, items: int):
        self.streams = EpochOrder(sizes[0], seed), EpochOrder(sizes[1], seed + APART)
        self.items, self.epoch = items, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Which items of each domain this epoch has, in its order, each (items,)."""
        source, target = (self._stretch(stream) for stream in self.streams)
        return source, target

    def _stretch(self, stream: EpochOrder) -> np.ndarray:
        first, last = self.epoch * self.items, (self.epoch + 1) * self.items
        passes = range(first // stream.items, -(-last // stream.items))
        drawn = []
        for number in passes:
            stream.set_epoch(number)
            drawn.append(stream.indices())
        start = first - passes.start * stream.items
        return np.concatenate(drawn)[start : start + self.items]


class PairLoader:
    """Training batches of both domains, as many images of each: `PairBatch`es.

    An epoch is as long as the longer domain. The place in it is one number, and both orders are functions of (seed,
    epoch): a run resumed in the middle of an epoch goes on with the batches of both that it has not seen.

    Args:
        source: images and labels that train.
        target: images; no label of theirs is ever touched here.
        batch_size: images of each domain; the last batch may be smaller.
        seed: of both orders.
        rank, world: this process's number and how many there are; each takes every world-th pair.
    """

    batch_sampler = None  # Lightning asks every loader that has a `sampler` for one

    def __init__(self, source: Split, target: np.ndarray, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        self.source, self.target, self.batch_size = source, target, batch_size
        self.rank, self.world = rank, world
        sizes = len(source.images), len(target)
        self.items = max(sizes) // world * world  # each process needs as many
        self.sampler = PairOrder(sizes, seed, self.items)
        self._batches_done = self._start = 0

    def __len__(self) -> int:
        return -(-self.items // self.world // self.batch_size)

    def __iter__(self) -> Iterator[PairBatch]:
        first, self._start = self._start, 0
        source, target = (order[self.rank :: self.world] for order in self.sampler.indices())
        for number in range(first, len(self)):
            here = slice(number * self.batch_size, (number + 1) * self.batch_size)
            self._batches_done = number + 1 if number + 1 < len(self) else 0
            yield PairBatch(
                torch.from_numpy(np.ascontiguousarray(self.source.images[source[here]])),
                torch.from_numpy(self.source.labels[source[here]].astype(np.int64)),
                torch.from_numpy(np.ascontiguousarray(self.target[target[here]])),
                torch.from_numpy(target[here].astype(np.int64)),
            )

    def state_dict(self) -> dict[str, Any]:
        return {"batches_done": self._batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches_done = self._start = state["batches_done"]


class PairDataModule(ImageDataModule):
    """Splits `source_train`, `target_train`, `source_val` … of two domains of the same shape and classes.

    A dataset implements `load_splits` and says its `domains`. Training batches are `PairBatch`es. Validation has two
    loaders: "" of the target, `Unlabelled`, and "source", with labels; the tests have the same names, and labels both.

    Args:
        batch_size: images of each domain in a training batch, per device.
    """

    domains: tuple[str, str] = DOMAINS  # their names, for people

    @abstractmethod
    def load_splits(self) -> dict[str, Split]:
        """The six splits."""

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, height=28, width=28, levels=256, classes=10)

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def prepare_data(self) -> None:
        super().prepare_data()
        for name, split in self.splits.items():
            if not len(split.images):
                raise UsageError(f"There are no images in {name.replace('_', ' ')}: both domains need some.")

    def target_labels(self, kind: str, peeking: bool = False) -> np.ndarray:
        """Labels (N,) of the target's images of a split.

        Raises:
            UsageError: they are asked for before the test, and not by one that says so (`peeking`).
        """
        if kind != "test" and not peeking:
            raise UsageError(
                f"The target's {kind} labels are asked for in fit, but an adaptation has none: only "
                "task.module.oracle=true and model=target_trained, which are not attainable without labels, see them."
            )
        return self.splits[f"{TARGET}_{kind}"].labels

    @property
    def fingerprint(self) -> str:
        """The sha256 of all that trains, labels included, in hex digits."""
        found = hashlib.sha256()
        for domain in DOMAINS:
            for array in self.splits[f"{domain}_train"]:
                found.update(np.ascontiguousarray(array))
        return found.hexdigest()

    def train_dataloader(self) -> PairLoader:
        source, target = self.splits["source_train"], self.splits["target_train"]
        return PairLoader(source, target.images, self.batch_size, self.seed, *self.place)

    def val_dataloader(self) -> dict[str, ArrayLoader]:
        return {
            "": ArrayLoader((self.splits["target_val"].images,), collate=unlabelled, **self.dealt("val")),
            SOURCE: BatchLoader(*self.splits["source_val"], **self.dealt("val")),
        }

    def test_dataloader(self) -> dict[str, ArrayLoader]:
        return {
            "": BatchLoader(*self.splits["target_test"], **self.dealt("test")),
            SOURCE: BatchLoader(*self.splits["source_test"], **self.dealt("test")),
        }
