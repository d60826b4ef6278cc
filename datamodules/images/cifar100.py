"""CIFAR-100: photographs, 32×32 RGB, 100 classes in 20 superclasses, which nine groups of our own gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.images.cifar10_files import SHAPE, find_shards
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.images.shared.held_out import held_out_classes, hold_out
from datamodules.images.shared.hierarchy import balancing_weights, check_balance, make_hierarchy
from datamodules.images.shared.image import ImageDataModule, Split, cut_validation, divide_anew
from datamodules.sources import Source, decode_table, hashes, hub_source, read_source
from datamodules.spec import ImageSpec

TITLE, HUB_NAME = "CIFAR-100", "uoft-cs/cifar100"
SPLIT_SEED = 0
# As published; fine classes are numbered by the alphabet.
SUPERCLASSES = {
    "aquatic_mammals": ["beaver", "dolphin", "otter", "seal", "whale"],
    "fish": ["aquarium_fish", "flatfish", "ray", "shark", "trout"],
    "flowers": ["orchid", "poppy", "rose", "sunflower", "tulip"],
    "food_containers": ["bottle", "bowl", "can", "cup", "plate"],
    "fruit_and_vegetables": ["apple", "mushroom", "orange", "pear", "sweet_pepper"],
    "household_electrical_devices": ["clock", "keyboard", "lamp", "telephone", "television"],
    "household_furniture": ["bed", "chair", "couch", "table", "wardrobe"],
    "insects": ["bee", "beetle", "butterfly", "caterpillar", "cockroach"],
    "large_carnivores": ["bear", "leopard", "lion", "tiger", "wolf"],
    "large_man-made_outdoor_things": ["bridge", "castle", "house", "road", "skyscraper"],
    "large_natural_outdoor_scenes": ["cloud", "forest", "mountain", "plain", "sea"],
    "large_omnivores_and_herbivores": ["camel", "cattle", "chimpanzee", "elephant", "kangaroo"],
    "medium_mammals": ["fox", "porcupine", "possum", "raccoon", "skunk"],
    "non-insect_invertebrates": ["crab", "lobster", "snail", "spider", "worm"],
    "people": ["baby", "boy", "girl", "man", "woman"],
    "reptiles": ["crocodile", "dinosaur", "lizard", "snake", "turtle"],
    "small_mammals": ["hamster", "mouse", "rabbit", "shrew", "squirrel"],
    "trees": ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"],
    "vehicles_1": ["bicycle", "bus", "motorcycle", "pickup_truck", "train"],
    "vehicles_2": ["lawn_mower", "rocket", "streetcar", "tank", "tractor"],
}
CLASS_NAMES = sorted(name for members in SUPERCLASSES.values() for name in members)


class CIFAR100(ImageDataModule):
    """`data=cifar100`: the published test images test, `val_items` of the training images validate, the rest train.

    Args:
        path: the folder looked in, `paths.data`: its folder `cifar100` with `train-*.parquet` and `test-*.parquet`, or
            with `train_balanced_10k-*.parquet`, the first 100 training images of each class; then the Hub is asked.
        cache: the folder for the decoded arrays, `paths.cache`.
        groups: of each group its superclasses; every superclass in one.
        balance: draw training images so that all labels of this level (`fine`, `super`, `group`) come equally often;
            `none`: each image once an epoch.
        val_items: validation images, the same ones in every run.
        test_share: test on this share of all images, drawn anew; None: on the published test images.
        flip, crop_padding: of training images, see `FlipAndCrop`.
        held_out: so many classes are never trained on: see `hold_out`.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        groups: Mapping[str, Sequence[str]],
        balance: str = "group",
        batch_size: int = 128,
        eval_batch_size: int = 250,
        val_items: int = 1000,
        test_share: float | None = None,
        seed: int = 0,
        flip: str = "none",
        crop_padding: int = 0,
        held_out: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        check_balance(balance)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.hierarchy, self.balance = make_hierarchy(SUPERCLASSES, groups), balance
        self.val_items, self.test_share = val_items, test_share
        self.flip_and_crop = FlipAndCrop(flip, crop_padding, seed)
        self.held_out = held_out_classes(held_out, len(CLASS_NAMES))

    @property
    def spec(self) -> ImageSpec:
        coarser = {"supers": self.hierarchy.supers, "groups": self.hierarchy.groups}
        return ImageSpec(*SHAPE, 256, classes=100, **coarser, names=tuple(CLASS_NAMES))

    @property
    def class_names(self) -> list[str]:
        return list(CLASS_NAMES)

    @property
    def note(self) -> str:
        there = sum(len(split.images) for split in self.splits.values())
        return "" if there in (0, 60_000) else f"{there:,} of the 60,000 images of CIFAR-100"

    def load_splits(self) -> dict[str, Split]:
        source = local_source(self.path) or hub_source(
            HUB_NAME, TITLE, f"train-*.parquet and test-*.parquet in {self.path / 'cifar100'}", SHAPE, CLASS_NAMES,
            label="fine_label",
        )  # fmt: skip
        arrays = cached_arrays(self.cache, "cifar100", source.key, lambda: read_source(source, TITLE, SHAPE, 100))
        published = (Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test"))
        given, test = divide_anew(*published, self.test_share, SPLIT_SEED)
        train, val = cut_validation(given, self.val_items, SPLIT_SEED)
        return hold_out({"train": train, "val": val, "test": test}, self.held_out)

    def weights(self) -> np.ndarray | None:
        return balancing_weights(self.hierarchy, self.splits["train"], self.balance)


def local_source(path: Path) -> Source | None:
    """The parquet files in `path/cifar100`: of all images, else of the balanced part; None without any.

    Raises:
        UsageError: a set is there but not all of it.
    """
    for folder in (path / "cifar100", path / "cifar100" / "cifar100"):
        stem = "train" if any(folder.glob("train-*.parquet")) else "train_balanced_10k"
        if files := find_shards(folder, TITLE, {"train": stem, "test": "test"}):
            key = {"form": "parquet", "files": hashes([file for shards in files.values() for file in shards])}
            parts = {split: {str(file): file for file in shards} for split, shards in files.items()}
            return Source(key, parts, read_parquet)
    return None


def read_parquet(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and fine labels of a parquet file with the columns `img` and `fine_label`."""
    import pyarrow.parquet as pq

    return decode_table(pq.ParquetFile(file).read(), file.name, SHAPE, CLASS_NAMES, label="fine_label")
