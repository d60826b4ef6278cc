"""Random numbers of each item's own, equal whatever batch, order or process the item is attacked in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """One generator for each item, seeded by (seed, the item's number in its split, the restart).

    Drawn on the CPU with NumPy, so that devices agree. `kept` goes on with some of the items.
    """

    def __init__(self, seed: int, items: Sequence[int], restart: int = 0):
        self.generators = [np.random.default_rng((seed % 2**64, int(item), restart)) for item in items]

    def kept(self, which: Tensor) -> Draws:
        """Those items (indices, or a mask) with their generators as they stand."""
        numbers = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        some = object.__new__(Draws)
        some.generators = [self.generators[number] for number in numbers.tolist()]
        return some

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """(N, *shape) in [0, 1), of `like`'s dtype and device."""
        return self._stacked([generator.random(shape) for generator in self.generators], shape, like)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """(N, *shape) from N(0, 1), of `like`'s dtype and device."""
        return self._stacked([generator.standard_normal(shape) for generator in self.generators], shape, like)

    @staticmethod
    def _stacked(rows: list[np.ndarray], shape: Sequence[int], like: Tensor) -> Tensor:
        stacked = np.stack(rows) if rows else np.empty((0, *shape))
        return torch.from_numpy(stacked).to(like)


class Source:
    """Where an attack's draws come from: `restart` → `Draws`.

    Args:
        count: items of the batch.
        seed: the attack's.
        items: numbers of the items in their split; None: 0 … count − 1.
        generator: wins over `seed`: a seed is drawn from it, so that two calls in a notebook differ.
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        items: Sequence[int] | Tensor | None = None,
        generator: torch.Generator | None = None,
    ):
        if generator is not None:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        numbers = range(count) if items is None else [int(item) for item in items]
        if len(numbers) != count:
            raise ValueError(f"{len(numbers)} items' numbers for {count} images")
        self.seed, self.items = seed, numbers

    def __call__(self, restart: int, which: Tensor | None = None) -> Draws:
        """The draws of a restart; `which` (indices): of these items only."""
        items = self.items if which is None else [self.items[number] for number in which.tolist()]
        return Draws(self.seed, items, restart)
