"""What every image dataset shares: splits held in memory, loaders over them, and the spec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import UsageError
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.images.shared.on_device import DeviceLoader, has_room
from datamodules.loader import BatchLoader
from datamodules.module import SplitDataModule
from datamodules.spec import ImageSpec


class Split(NamedTuple):
    """Images uint8 (N, C, H, W) and their labels (N,)."""

    images: np.ndarray
    labels: np.ndarray


class ImageDataModule(SplitDataModule):
    """Splits `train`, `val` and `test` of uint8 images, and loaders over them.

    A dataset implements `load_splits`. `prepare_data` runs on every process; after it `spec` and `splits` are known.

    Args:
        batch_size: images per training batch, per device.
        eval_batch_size: images per validation and test batch, per device.
        seed: of the training order; the splits do not depend on it.
    """

    def __init__(self, batch_size: int, eval_batch_size: int, seed: int):
        super().__init__(batch_size, eval_batch_size, seed)
        self.splits: dict[str, Split] = {}

    @property
    @abstractmethod
    def spec(self) -> ImageSpec:
        """What the images are."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The name of each label."""

    @property
    def note(self) -> str:
        """What a reader of this data's figures must know; empty when there is nothing."""
        return ""

    @property
    def positive(self) -> int | None:
        """Of two classes the one that is looked for, by its number; None: there are more."""
        return 1 if self.spec.classes == 2 else None

    nested_splits = ("train", "val", "test")  # what is pooled where nested cross-validation judges all of the data
    flip_and_crop: FlipAndCrop | None = None  # how training images are moved
    on_device: bool | str = "auto"  # do training images lie on the device that trains? auto: on a GPU with the room

    def groups(self, split: str) -> np.ndarray | None:
        """Numbers (N,) of what belongs together in a split, say one patient's images; None: nothing does."""
        return None

    def augment(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        """What a training batch's images (B, C, H, W) become.

        Args:
            rng: a function of (seed, epoch, batch number).
            rows: each image's number in the split (B,).
            epoch: from 0.
        """
        return self.flip_and_crop(images, rng, rows, epoch) if self.flip_and_crop else images

    def weights(self) -> np.ndarray | None:
        """The chance of each training image to be drawn (N,); None: each once an epoch."""
        return None

    @abstractmethod
    def load_splits(self) -> dict[str, Split]:
        """The splits `train`, `val` and `test`; validation images come from the training data."""

    def prepare_data(self) -> None:
        if not self.splits:
            self.splits = self.load_splits()
            require_apart({split: self.groups(split) for split in self.splits})

    @property
    def can_lie_on_device(self) -> bool:
        """Are training batches what `DeviceLoader` makes: single images, moved in no way but `flip_and_crop`?"""
        own = type(self)
        return own.augment is ImageDataModule.augment and own.train_dataloader is ImageDataModule.train_dataloader

    def _loader(self, split: str) -> BatchLoader:
        if split != "train":
            return BatchLoader(*self.splits[split], **self.dealt(split))
        common: dict[str, Any] = self.dealt(split) | {"weights": self.weights()}
        if self.trainer and self.on_device and self.can_lie_on_device:
            device = self.trainer.strategy.root_device
            if self.on_device is True or has_room(device, self.splits[split].images.nbytes):
                return DeviceLoader(*self.splits[split], **common, device=device, moves=self.flip_and_crop)
        return BatchLoader(*self.splits[split], **common, augment=self.augment)

    def test_dataloader(self) -> BatchLoader | dict[str, BatchLoader]:
        """Where classes are held out, a second loader, `unseen`, of their images."""
        test = self._loader("test")
        return {"": test, "unseen": self._loader("unseen")} if "unseen" in self.splits else test


def require_apart(groups: Mapping[str, np.ndarray | None]) -> None:
    """Raises UsageError when one of the groups, say a patient, has images in two splits."""
    owner: dict[int, str] = {}
    for split, numbers in groups.items():
        own = set() if numbers is None else set(np.asarray(numbers).tolist())
        if shared := sorted(number for number in own if number in owner):
            told = ", ".join(map(str, shared[:5]))
            raise UsageError(
                f"{len(shared)} patients (or other groups) have images in {split} and in {owner[shared[0]]}, so that "
                f"figures of one would be of the other: {told}{' …' if len(shared) > 5 else ''}; divide by patient."
            )
        owner |= dict.fromkeys(own, split)


def divide_anew(given: Split, test: Split, test_share: float | None, split_seed: int) -> tuple[Split, Split]:
    """(what trains and validates, what tests): as given, or of both together the share `test_share`, drawn anew by a
    permutation from `split_seed`; a smaller share's test images are among a larger one's.

    Raises:
        UsageError: `test_share` is not between 0 and 1.
    """
    if test_share is None:
        return given, test
    if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 < test_share < 1:
        raise UsageError(f"data.test_share is {test_share!r}, but it must be a share between 0 and 1, such as 0.1.")
    images, labels = (np.concatenate(pair) for pair in zip(given, test, strict=True))
    order, items = np.random.default_rng(split_seed).permutation(len(images)), max(1, round(test_share * len(images)))
    rest, drawn = np.sort(order[items:]), np.sort(order[:items])
    return Split(images[rest], labels[rest]), Split(images[drawn], labels[drawn])


def cut_validation(train: Split, items: int, split_seed: int) -> tuple[Split, Split]:
    """Divides a training split into (what trains, what validates), by a permutation drawn from `split_seed`.

    Raises:
        UsageError: `items` is not between 1 and one less than the images there are.
    """
    total = len(train.images)
    if not isinstance(items, int) or not 1 <= items < total:
        raise UsageError(
            f"data.val_items is {items!r}, but the training split has {total} images: choose 1 to {total - 1}."
        )
    order = np.random.default_rng(split_seed).permutation(total)
    rest, held = np.sort(order[items:]), np.sort(order[:items])
    return Split(train.images[rest], train.labels[rest]), Split(train.images[held], train.labels[held])
