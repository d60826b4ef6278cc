"""Batches as one indexed slice, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class EpochOrder:
    """The order of `items` items: a permutation drawn from (seed, epoch), or 0, 1, 2 … without a seed.

    With `weights`, the chance of each item (N,): as many draws with replacement.

    Lightning finds it as a loader's `sampler` and calls `set_epoch` before every training epoch.
    """

    def __init__(self, items: int, seed: int | None, weights: np.ndarray | None = None):
        self.items, self.seed, self.weights, self.epoch = items, seed, weights, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def indices(self) -> np.ndarray:
        if self.seed is None:
            return np.arange(self.items)
        rng = np.random.default_rng((self.seed, self.epoch))
        return (
            rng.permutation(self.items) if self.weights is None else rng.choice(self.items, self.items, p=self.weights)
        )


Arrays = tuple[np.ndarray, ...]
Augment = Callable[[Arrays, np.random.Generator, np.ndarray, int], Arrays]
Collate = Callable[[Arrays, np.ndarray, int], Any]


def as_pair(arrays: Arrays, rows: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
    """(images, labels int64) of a batch."""
    images, labels = arrays
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


class ArrayLoader:
    """Iterates over batches cut from arrays that are indexed alike and held in memory.

    Args:
        arrays: each (N, …), an array or a memory map.
        batch_size: items per batch; the last batch may be smaller.
        seed: shuffles with it, anew every epoch; None keeps the given order.
        rank, world: this process's number and how many there are; each takes every world-th item. (A loader whose
            `world` is more than 1 deals its items so, and `Task` puts their rows back in order; one that has none
            gives every process all of them.)
        even: drop the few last items that not every process would get (training needs equal counts).
        least: a last batch of fewer items is left out.
        augment: what each batch's arrays become, given them, a generator that is a function of (seed, epoch, batch
            number), the items' numbers and the epoch; training only: it needs the seed.
        weights: draw items with these chances (N,), with replacement; None: each once an epoch.
        collate: the batch, given its arrays, the items' numbers and the epoch.

    `state_dict` holds the place in the epoch, so that a run resumed in the middle of an epoch goes on
    with the batches it has not seen (`running.training.callbacks.Record` saves and restores it).
    """

    batch_sampler = None  # Lightning asks every loader that has a `sampler` for one

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
        augment: Augment | None = None,
        weights: np.ndarray | None = None,
        collate: Collate = as_pair,
        least: int = 1,
    ):
        self.arrays, self.items, self.batch_size = arrays, len(arrays[0]), batch_size
        self.rank, self.world, self.even = rank, world, even
        self.augment, self.collate, self.least = augment, collate, least
        self.sampler = EpochOrder(self.items, seed, weights)
        self._batches_done = self._start = 0

    def _own_indices(self) -> np.ndarray:
        order = self.sampler.indices()
        if self.even:
            order = order[: len(order) // self.world * self.world]
        return order[self.rank :: self.world]

    def __len__(self) -> int:
        items = self.items // self.world if self.even else len(range(self.rank, self.items, self.world))
        whole, rest = divmod(items, self.batch_size)
        return whole + (rest >= self.least)

    def __iter__(self) -> Iterator[Any]:
        first, self._start = self._start, 0
        order = self._own_indices()
        for number in range(first, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            self._batches_done = number + 1 if number + 1 < len(self) else 0
            yield self._batch(rows, number)

    def _batch(self, rows: np.ndarray, number: int) -> Any:
        """The epoch's batch of this number, of the items `rows`."""
        arrays = tuple(array[rows] for array in self.arrays)
        if self.augment:
            arrays = self.augment(arrays, self._generator(number), rows, self.sampler.epoch)
        return self.collate(arrays, rows, self.sampler.epoch)

    def _generator(self, number: int) -> np.random.Generator:
        # Batches count over all processes, so that no two draw alike, and from 1: numpy takes (seed, epoch, 0) for
        # (seed, epoch), from which the order is drawn.
        return np.random.default_rng((self.sampler.seed, self.sampler.epoch, 1 + number * self.world + self.rank))

    def state_dict(self) -> dict[str, Any]:
        return {"batches_done": self._batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches_done = self._start = state["batches_done"]


class BatchLoader(ArrayLoader):
    """Batches (images uint8 (B, C, H, W), labels int64 (B,)).

    Args:
        images: uint8 (N, C, H, W).
        labels: integers (N,).
        augment: of the images alone.
        others: see `ArrayLoader`.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        *,
        augment: Callable[[np.ndarray, np.random.Generator, np.ndarray, int], np.ndarray] | None = None,
        **others: Any,
    ):
        def of_pair(arrays: Arrays, *drawn: Any) -> Arrays:
            return augment(arrays[0], *drawn), arrays[1]

        super().__init__((images, labels), batch_size, seed, augment=of_pair if augment else None, **others)
