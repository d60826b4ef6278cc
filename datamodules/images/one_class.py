"""Data to find anomalies in: one class is normal, and it alone is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.images.digits import Digits
from datamodules.images.folder import Images, divide
from datamodules.images.mnist import MNIST
from datamodules.images.pneumonia_mnist import PneumoniaMNIST
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.spec import ImageSpec

CONTRASTS = ("none", "per_image")
CLIP = 3.0  # standard deviations, of data.contrast=per_image
LATEST = 6000  # of MNIST's 60,000 training images the last validate
Normal = int | str | Sequence[int | str]


class OneClass(ImageDataModule):
    """A labelled data set of which `train` and `val` keep the normal classes' images only, and `test` keeps all.

    What `val` loses is kept as the split `val_anomalies`, which no loader gives out: a threshold may be read off it, if
    that is asked for. Labels stay those of the data set; `normal_labels` says which are normal.

    Args:
        normal: the normal class, by number or name, or a list of several; None: `usual`.
        contrast: `none`; or `per_image`: each image is brought to the mean 0 and the standard deviation 1, clipped at
            ±3 and spread over 256 levels, so that neither brightness nor contrast tells an anomaly.
        options: of the data set.

    Raises:
        UsageError: there is no such class or contrast; from `prepare_data`, where the classes are known only then.
    """

    usual: int = 0

    def __init__(self, normal: Normal | None = None, contrast: str = "none", **options: Any):
        super().__init__(**options)
        if contrast not in CONTRASTS:
            near = did_you_mean(str(contrast), CONTRASTS)
            raise UsageError(f"data.contrast is {contrast!r}{near}: choose {' or '.join(CONTRASTS)}.")
        self.normal, self.contrast = self.usual if normal is None else normal, contrast

    @property
    def spec(self) -> ImageSpec:
        return replace(super().spec, levels=256) if self.contrast == "per_image" else super().spec

    @property
    def normal_labels(self) -> list[int]:
        return normal_labels(self.normal, self.class_names)

    @property
    def normal_names(self) -> list[str]:
        return [self.class_names[label] for label in self.normal_labels]

    def labelled_splits(self) -> dict[str, Split]:
        """The data set's own splits, all classes in each."""
        return super().load_splits()

    def load_splits(self) -> dict[str, Split]:
        splits = self.labelled_splits()
        wanted = self.normal_labels
        found = {}
        for name, split in splits.items():
            normal = np.isin(split.labels, wanted)
            if name == "test":
                found[name] = split
                continue
            found[name] = Split(split.images[normal], split.labels[normal])
            if name == "val":
                found["val_anomalies"] = Split(split.images[~normal], split.labels[~normal])
        for name in ("train", "val"):
            if not len(found[name].images):
                names = ", ".join(self.normal_names)
                raise UsageError(
                    f"data.normal={names}: the split {name} has no image of it; give it more images or choose another "
                    "class."
                )
        if self.contrast == "per_image":
            found = {name: split._replace(images=standardised(split.images)) for name, split in found.items()}
        return found


class DigitsOneClass(OneClass, Digits):
    """`data=digits_one_class`: the embedded digits, of which `normal` are normal."""

    usual = 8


class MNISTOneClass(OneClass, MNIST):
    """`data=mnist_one_class`: MNIST in grey. Of the first 54,000 training images the normal ones train, of the last
    6,000 they validate; all 10,000 test images test."""

    usual = 8

    def __init__(self, **options: Any):
        super().__init__(binarize="none", **options)

    @property
    def note(self) -> str:
        return ""

    def labelled_splits(self) -> dict[str, Split]:
        given, test = self.published()
        train, val = (Split(given.images[part], given.labels[part]) for part in (slice(-LATEST), slice(-LATEST, None)))
        return {"train": train, "val": val, "test": test}


class PneumoniaNormals(OneClass, PneumoniaMNIST):
    """`data=pneumonia_mnist_normals`: PneumoniaMNIST's official splits; the normal X-rays train and validate."""


class ImagesOneClass(OneClass, Images):
    """`data=images_one_class data.path=FOLDER data.normal=SUBFOLDER`: trains on part of that subfolder's pictures.

    Of the subfolder's pictures the shares `val_fraction` and `test_fraction` validate and test; all other subfolders'
    pictures test too. There are no anomalies in the validation images.
    """

    def __init__(self, normal: Normal | None = None, **options: Any):
        super().__init__(normal=normal, **options)
        if normal is None:
            raise UsageError("data=images_one_class needs data.normal=SUBFOLDER, the subfolder of normal pictures.")

    def labelled_splits(self) -> dict[str, Split]:
        images, labels = self.labelled()
        if not self.class_names:
            raise UsageError(
                f"data.path={self.path} has no classes: put all pictures into subfolders, one for each class, and name "
                "the normal one as data.normal=SUBFOLDER."
            )
        normal = np.flatnonzero(np.isin(labels, self.normal_labels))
        parts = divide(len(normal), *self.fractions, self.path)
        rows = {name: normal[part] for name, part in parts.items()}
        rows["test"] = np.sort(np.concatenate([rows["test"], np.setdiff1d(np.arange(len(labels)), normal)]))
        return {name: Split(images[part], labels[part]) for name, part in rows.items()}


def normal_labels(normal: Normal, names: Sequence[str]) -> list[int]:
    """The numbers of the classes that `normal` names, in order.

    Raises:
        UsageError: there is no such class, none is named, or all are.
    """
    known = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} …"
    asked = list(normal) if isinstance(normal, Sequence) and not isinstance(normal, str) else [normal]
    found = set()
    for one in asked:
        if str(one) in names:  # a name goes before a number: a folder may be called 3
            found.add(list(names).index(str(one)))
        elif isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names):
            found.add(one)
        else:
            raise UsageError(
                f"data.normal is {one!r}{did_you_mean(str(one), names)}, but the classes are {known}: choose one of "
                "them, or a list."
            )
    if not found or len(found) == len(names):
        raise UsageError(
            f"data.normal is {normal!r}, but some classes must be normal and some not: the classes are {known}."
        )
    return sorted(found)


def standardised(images: np.ndarray) -> np.ndarray:
    """Images uint8 (N, C, H, W), each brought to the mean 0 and the deviation 1, clipped at ±3: −3 … 3 as 0 … 255.

    An image of one level becomes all 128.
    """
    values = images.astype(np.float32)
    means = values.mean((1, 2, 3), keepdims=True)
    deviations = np.maximum(values.std((1, 2, 3), keepdims=True), 1e-6)
    within = np.clip((values - means) / deviations, -CLIP, CLIP)
    return np.floor((within + CLIP) * (255 / (2 * CLIP)) + 0.5).astype(np.uint8)
