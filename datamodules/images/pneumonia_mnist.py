"""PneumoniaMNIST: 5,856 chest X-rays of children, 28×28 grey, normal or pneumonia."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.images.shared.augment import FlipAndCrop
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.images.shared.xray_augment import MIRRORED, XrayAugment
from datamodules.sources import Source, damage_named, hashes, read_source
from datamodules.spec import ImageSpec

SHAPE = (1, 28, 28)
CLASS_NAMES = ["normal", "pneumonia"]
FILE = "pneumoniamnist.npz"
FOLDERS = ("pneumonia_mnist", "pneumoniamnist", ".")
SPLITS = ("train", "val", "test")
TEST_ITEMS = 624


class PneumoniaMNIST(ImageDataModule):
    """`data=pneumonia_mnist`: the official splits, 4,708 images to train, 524 to validate, 624 to test.

    Eight pneumonias are both in train and in val; that is so in the source. Patients are unknown, and a child may have
    several images, so that cross-validation on the training images is optimistic: the published splits are the measure.

    Args:
        path: the folder looked in, `paths.data`, for MedMNIST's file `pneumoniamnist.npz`.
        cache: the folder for the decoded arrays (5 MB), `paths.cache`.
        crop_padding: training images are moved by up to so many pixels.
        augment, mirror: of training images, see `XrayAugment`; mirroring puts the heart on the right.

    Source: Yang et al., "MedMNIST v2", Scientific Data 2023; the X-rays: Kermany et al., Cell 2018. CC BY 4.0.
    """

    nested_splits = ("train",)

    def __init__(
        self,
        path: str,
        cache: str,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        seed: int = 0,
        crop_padding: int = 0,
        augment: str = "none",
        mirror: bool = False,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.flip_and_crop, self.alter = FlipAndCrop("none", crop_padding, seed), XrayAugment(augment, mirror)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(*SHAPE, levels=256, classes=2)

    @property
    def class_names(self) -> list[str]:
        return list(CLASS_NAMES)

    def augment(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        return self.alter(super().augment(images, rng, rows, epoch), rng)

    @property
    def note(self) -> str:
        there = len(self.splits["test"].images) if self.splits else TEST_ITEMS
        other = f"another split, {there} test images: figures do not compare"
        said = [] if there == TEST_ITEMS else [other]
        return "; ".join([*said, MIRRORED] if self.alter.mirror else said)

    def load_splits(self) -> dict[str, Split]:
        source = npz_source(self.path)
        read = lambda: read_source(source, "PneumoniaMNIST", SHAPE, len(CLASS_NAMES))  # noqa: E731
        arrays = cached_arrays(self.cache, "pneumonia_mnist", source.key, read)
        return {name: Split(arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in SPLITS}


def npz_source(path: Path) -> Source:
    """MedMNIST's file in one of FOLDERS.

    Raises:
        UsageError: it is not there, or cannot be read.
    """
    for folder in FOLDERS:
        if (file := path / folder / FILE).is_file():
            key = {"form": "npz", "files": hashes([file])}
            return Source(key, {split: {str(file): (file, split)} for split in SPLITS}, read_split)
    folders = ", ".join(f"{folder}/" for folder in FOLDERS)
    raise UsageError(
        f"PneumoniaMNIST was not found as {FILE} in {folders} of {path}: fetch it from medmnist.com and set "
        "paths.data=FOLDER or ETUDES_DATA=FOLDER to where it is, or take data=digits_one_class or data=digits, which "
        "need no download."
    )


def read_split(part: tuple[Path, str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 28, 28) and labels (N,) of a split in MedMNIST's file."""
    file, split = part
    with damage_named(file, "PneumoniaMNIST"):
        try:
            with np.load(file, allow_pickle=False) as loaded:
                images, labels = loaded[f"{split}_images"], loaded[f"{split}_labels"]
        except BadZipFile as error:
            raise ValueError(str(error)) from error
        if labels.shape != (len(images), 1):
            raise ValueError(f"labels of the shape {labels.shape}")
        return images[:, None], labels[:, 0]
