"""A dataset's test split, and trainings that see nothing of the rest: batches without items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor


class Counter:
    """`batches` empty batches, one after the other; its place can be kept, as an `ArrayLoader`'s."""

    def __init__(self, batches: int):
        self.batches, self.batches_done, self.start = batches, 0, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        first, self.start = self.start, 0
        for number in range(first, self.batches):
            self.batches_done = number + 1 if number + 1 < self.batches else 0
            yield torch.empty(0)

    def state_dict(self) -> dict[str, Any]:
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches_done = self.start = state["batches_done"]


class DataFree(L.LightningDataModule):
    """`data` with its training images replaced by a counter, its validation images by one empty batch.

    Its spec, names, splits and test images are those of `data`. A training loader of `data` is never made.

    Args:
        data: an image datamodule.
        batches: of an epoch.
    """

    def __init__(self, data: Any, batches: int):
        super().__init__()
        self.data, self.batches = data, batches

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # not there yet
            raise AttributeError(name)
        return getattr(self.data, name)

    def train_dataloader(self) -> Counter:
        return Counter(self.batches)

    def val_dataloader(self) -> Counter:
        return Counter(1)

    def test_dataloader(self) -> Any:
        self.data.trainer = self.trainer
        return self.data.test_dataloader()
