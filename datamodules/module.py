"""What every kind of data shares: batch sizes, this process's part of a split, and a loader over each split."""

from __future__ import annotations

from typing import Any

import lightning as L

from datamodules.errors import UsageError


class SplitDataModule(L.LightningDataModule):
    """Splits `train`, `val` and `test`, a loader over each: a kind of data implements `_loader`.

    Args:
        batch_size: items per training batch, per device.
        eval_batch_size: items per validation and test batch, per device.
        seed: of the training order; the splits do not depend on it.
        items: what an item is called, for messages.
    """

    prepare_data_per_node = True

    def __init__(self, batch_size: int, eval_batch_size: int, seed: int, items: str = "images"):
        super().__init__()
        for name, size in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"data.{name} is {size!r}, but it must be a whole number of {items}, 1 or more.")
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed

    @property
    def place(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def dealt(self, split: str) -> dict[str, Any]:
        """How an `ArrayLoader` deals a split out: training is shuffled, and every process gets as much of it."""
        (rank, world), training = self.place, split == "train"
        return {
            "batch_size": self.batch_size if training else self.eval_batch_size,
            "seed": self.seed if training else None,
            "rank": rank,
            "world": world,
            "even": training,
        }

    def _loader(self, split: str) -> Any:
        raise NotImplementedError

    def train_dataloader(self) -> Any:
        return self._loader("train")

    def val_dataloader(self) -> Any:
        return self._loader("val")

    def test_dataloader(self) -> Any:
        return self._loader("test")
