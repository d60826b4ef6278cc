"""CIFAR-100's ten vehicle classes, 500 training and 100 test images each, 32×32 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.images.cifar10_files import SHAPE, find_shards
from datamodules.images.cifar100 import CLASS_NAMES as ALL_NAMES
from datamodules.images.cifar100 import SUPERCLASSES
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.images.shared.classes import chosen_classes, of_names
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.sources import Source, decode_table, hashes, read_source
from datamodules.spec import ImageSpec

TITLE = "CIFAR-100's vehicles"
CLASS_NAMES = [*SUPERCLASSES["vehicles_1"], *SUPERCLASSES["vehicles_2"]]
FINE = [ALL_NAMES.index(name) for name in CLASS_NAMES]
VAL_SHARE, LEAST_WITH_VAL = 0.1, 20


class CIFAR100Vehicles(ImageDataModule):
    """`data=cifar100_vehicles`: the published test images of these classes test.

    Of each class `per_class` training images are taken, a smaller number within a larger one's; a tenth of them
    validates, of fewer than 20 none.

    Args:
        path: the folder looked in, `paths.data`: CIFAR-100's training files in `cifar100`, all of them, or the balanced
            10,000 and the vehicles' rest in `cifar100_vehicles`.
        cache: the folder for the decoded arrays (15 MB), `paths.cache`.
        per_class: training and validation images of each class together; None: all 500.
        draw: which ones, where they are fewer: another number draws anew.
        classes: some of the ten; None: all.
        flip, crop_padding: of training images, see `FlipAndCrop`.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        per_class: int | None = None,
        draw: int = 0,
        classes: Sequence[str] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 0,
        flip: str = "none",
        crop_padding: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        if per_class is not None and (isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1):
            raise UsageError(f"data.per_class is {per_class!r}, but it must be a number of images, or null for all.")
        if isinstance(draw, bool) or not isinstance(draw, int) or draw < 0:
            raise UsageError(f"data.draw is {draw!r}, but it must be a whole number, 0 or more.")
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.per_class, self.draw = per_class, draw
        self.classes = chosen_classes(classes, CLASS_NAMES)
        self.flip_and_crop = FlipAndCrop(flip, crop_padding, seed)

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(*SHAPE, levels=256, classes=len(self.classes), names=tuple(self.classes))

    @property
    def class_names(self) -> list[str]:
        return list(self.classes)

    @property
    def note(self) -> str:
        if not self.splits:
            return ""
        train, val = (len(self.splits[split].images) // len(self.classes) for split in ("train", "val"))
        return f"{train} images a class train, {val} validate; the {TITLE[:-11]} test images of these classes test"

    def load_splits(self) -> dict[str, Split]:
        source = vehicles_source(self.path)
        arrays = cached_arrays(
            self.cache, "cifar100_vehicles", source.key, lambda: read_source(source, TITLE, SHAPE, len(CLASS_NAMES))
        )
        given, test = (
            of_names(Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]), self.classes, CLASS_NAMES)[0]
            for split in ("train", "test")
        )
        return {**take(given, self.per_class, self.draw), "test": test}


def take(given: Split, per_class: int | None, draw: int) -> dict[str, Split]:
    """`train` and `val` of `per_class` images of each class, the first of a permutation of its own from `draw`.

    Raises:
        UsageError: a class has fewer.
    """
    train, val = [], []
    for label in range(int(given.labels.max()) + 1):
        rows = np.flatnonzero(given.labels == label)
        number = len(rows) if per_class is None else per_class
        if number > len(rows):
            raise UsageError(f"data.per_class is {per_class}, but there are {len(rows)} training images of a class.")
        rows = np.random.default_rng((draw, label)).permutation(rows)[:number]
        held = int(VAL_SHARE * number) if number >= LEAST_WITH_VAL else 0
        # Spread over the permutation, so that a smaller number's validation images are among a larger one's.
        places = np.arange(number) % round(1 / VAL_SHARE) == 0 if held else np.zeros(number, bool)
        train.append(rows[~places])
        val.append(rows[places])
    return {
        name: Split(given.images[rows], given.labels[rows])
        for name, rows in (("train", np.sort(np.concatenate(train))), ("val", np.sort(np.concatenate(val))))
    }


def vehicles_source(path: Path) -> Source:
    """The training files, whole or in two parts, and the test files.

    Raises:
        UsageError: they are not there, or not all of them.
    """
    own = path / "cifar100"
    rest = sorted((path / "cifar100_vehicles").glob("train_vehicles_rest*.parquet"))
    whole = any(own.glob("train-*.parquet"))
    files = find_shards(own, "CIFAR-100", {"train": "train" if whole else "train_balanced_10k", "test": "test"})
    if not files or not (whole or rest):
        rest_of = path / "cifar100_vehicles"
        raise UsageError(
            f"{TITLE} were not found as train-*.parquet and test-*.parquet in {own}, nor as "
            f"train_balanced_10k-*.parquet there with train_vehicles_rest*.parquet in {rest_of}: set "
            "paths.data=FOLDER or ETUDES_DATA=FOLDER to where they are, or take data=digits, which needs no download."
        )
    if not whole:
        files = {**files, "train": [*files["train"], *rest]}
    key = {"form": "parquet", "files": hashes([file for shards in files.values() for file in shards])}
    return Source(key, {split: {str(file): file for file in shards} for split, shards in files.items()}, read_parquet)


def read_parquet(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) of the vehicles in a file of CIFAR-100, and their labels, 0 … 9."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read()
    table = table.filter(pc.is_in(table["fine_label"], pa.array(FINE, table["fine_label"].type)))
    images, fine = decode_table(table, file.name, SHAPE, ALL_NAMES, label="fine_label")
    return images, np.array([FINE.index(label) for label in fine.tolist()], np.int64)
