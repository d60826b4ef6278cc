"""CIFAR-10: 60,000 photographs, 32×32 RGB, ten classes; from local files in any usual form, or the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.cache import cached_arrays
from datamodules.images.cifar10_files import CLASS_NAMES, SHAPE, local_source
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.images.shared.classes import chosen_classes, of_names
from datamodules.images.shared.held_out import held_out_classes, hold_out
from datamodules.images.shared.image import ImageDataModule, Split, cut_validation
from datamodules.sources import Source, hub_source, read_source
from datamodules.spec import ImageSpec

HUB_NAME = "uoft-cs/cifar10"
SPLIT_SEED = 0


class CIFAR10(ImageDataModule):
    """`data=cifar10`: the 10,000 published test images test, `val_items` of the 50,000 others validate, the rest train.

    Args:
        path: the folder looked in, `paths.data`; then the Hub is asked.
        cache: the folder for the decoded arrays (180 MB), `paths.cache`.
        val_items: validation images, the same ones in every run.
        flip, crop_padding: of training images, see `FlipAndCrop`.
        held_out: so many classes are never trained on: see `hold_out`.
        classes: some of the ten; None: all.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        val_items: int = 5000,
        seed: int = 0,
        flip: str = "none",
        crop_padding: int = 0,
        held_out: int = 0,
        classes: Sequence[str] | None = None,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.val_items, self.flip_and_crop = val_items, FlipAndCrop(flip, crop_padding, seed)
        self.classes = chosen_classes(classes, CLASS_NAMES)
        self.held_out = held_out_classes(held_out, len(self.classes))

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(*SHAPE, levels=256, classes=len(self.classes), names=tuple(self.classes))

    @property
    def class_names(self) -> list[str]:
        return list(self.classes)

    def load_splits(self) -> dict[str, Split]:
        source = local_source(self.path) or self._from_hub()
        arrays = cached_arrays(self.cache, "cifar10", source.key, lambda: read_source(source, "CIFAR-10", SHAPE, 10))
        published = [Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test")]
        given, test = (of_names(split, self.classes, CLASS_NAMES)[0] for split in published)
        train, val = cut_validation(given, self.val_items, SPLIT_SEED)
        return hold_out({"train": train, "val": val, "test": test}, self.held_out)

    def _from_hub(self) -> Source:
        looked_for = (
            f"train-*.parquet and test-*.parquet, cifar-10-batches-py or cifar-10-batches-bin "
            f"in {self.path} or {self.path / 'cifar10'}"
        )
        return hub_source(HUB_NAME, "CIFAR-10", looked_for, SHAPE, CLASS_NAMES)
