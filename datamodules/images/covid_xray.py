"""Chest X-rays of COVID-19, of pneumonia and without finding, from two sources that give the classes away.

The COVID-19 images were gathered from publications, the others are of one hospital's archive: file format and size
alone tell them apart. What a network learns here is first of all the source; `data.region` shows how much of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.classes import chosen_classes
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.images.shared.regions import check_region, keep_region, region_mask
from datamodules.images.shared.xray_augment import MIRRORED, XrayAugment
from datamodules.sources import damage_named, hashes
from datamodules.spec import ImageSpec

TITLE = "the COVID-19 X-rays"
CLASS_NAMES = ["covid", "no_finding", "pneumonia"]
STEM, FOLDERS = "covid_xray_224", ("covid_xray", ".")
FITS = ("crop", "stretch", "pad")
FOLDS, SPLIT_SEED = 5, 0
FACTS = ("width", "height", "bytes", "format", "mode")  # of the original files
FORMATS, MODES = ["JPEG", "PNG"], ["L", "RGB", "RGBA"]
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# What a file's name ends in where one patient has several images: a view, a day, a panel.
ENDINGS = re.compile(
    r"([-_.](pa|ap|l|left|right|admission|day-?\d+|\d+-(hours|days)|[a-f]\d?)|(?<=\d)[a-f]\d?)$", re.IGNORECASE
)


class CovidXray(ImageDataModule):
    """`data=covid_xray`: 124 COVID-19, 500 without finding, 500 pneumonia; five folds that no patient's images share.

    Fold `fold` tests, the next validates, the others train. Groups are the patients: of ChestX-ray8 by the file's
    number, of the COVID-19 images by what their names have in common.

    Args:
        path: the folder looked in, `paths.data`, for `covid_xray_224-*.parquet`.
        cache: the folder for the decoded arrays, `paths.cache`.
        size: pixels a side.
        fit: `crop`: the middle square; `stretch` and `pad` let the original's proportions, which tell the source, in.
        region: `whole`, `centre` (56 % of the picture), `no_centre`, or `border` (the outer 9.4 %): see `regions.py`.
        classes: some of the three; None: all.
        positive: this class against the others together; None: each class apart.
        fold: 0 to 4.
        augment, mirror: of training images, see `XrayAugment`; mirroring puts the heart on the right.

    Sources: Ozturk et al. 2020 (github.com/muhammedtalo/COVID-19); Cohen et al. 2020, "COVID-19 Image Data
    Collection"; Wang et al. 2017, "ChestX-ray8".
    """

    def __init__(
        self,
        path: str,
        cache: str,
        size: int = 128,
        fit: str = "crop",
        region: str = "whole",
        classes: Sequence[str] | None = None,
        positive: str | None = None,
        fold: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 100,
        seed: int = 0,
        augment: str = "none",
        mirror: bool = False,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.alter = XrayAugment(augment, mirror)
        if isinstance(size, bool) or not isinstance(size, int) or not 16 <= size <= 224:
            raise UsageError(f"data.size is {size!r}, but it must be from 16 to 224 pixels.")
        if fit not in FITS:
            raise UsageError(f"data.fit is {fit!r}{did_you_mean(str(fit), FITS)}: choose {', '.join(FITS)}.")
        check_region(region)
        if fold not in range(FOLDS):
            raise UsageError(f"data.fold is {fold!r}, but it must be from 0 to {FOLDS - 1}.")
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.size, self.fit, self.region, self.fold = size, fit, region, fold
        region_mask(region, size, size)
        self.classes, self.asked = chosen_classes(classes, CLASS_NAMES), positive
        if positive is not None and positive not in self.classes:
            near = did_you_mean(str(positive), self.classes)
            raise UsageError(f"data.positive is {positive!r}{near}, but the classes are {', '.join(self.classes)}.")
        self.patients: dict[str, np.ndarray] = {}
        self.originals: dict[str, np.ndarray] = {}

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(1, self.size, self.size, levels=256, classes=len(self.class_names))

    @property
    def class_names(self) -> list[str]:
        if self.asked is None:
            return list(self.classes)
        others = [name for name in self.classes if name != self.asked]
        return [others[0] if len(others) == 1 else "the rest", self.asked]

    @property
    def note(self) -> str:
        return (
            "class and source are the same thing here: the COVID-19 images come from publications, the others from one "
            "archive, and the file's format and size alone tell them apart"
        ) + (f"; {MIRRORED}" if self.alter.mirror else "")

    def augment(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        return self.alter(images, rng)

    def groups(self, split: str) -> np.ndarray:
        return self.patients[split]

    def facts(self, split: str) -> np.ndarray:
        """Width, height, bytes a pixel, format and mode of each image's original file (N, 5)."""
        width, height, size, form, mode = self.originals[split].T
        return np.stack([width, height, size / (width * height), form, mode], 1)

    def load_splits(self) -> dict[str, Split]:
        file = find_file(self.path)
        key = {"form": "parquet", "files": hashes([file]), "size": self.size, "fit": self.fit}
        arrays = cached_arrays(self.cache, "covid_xray", key, lambda: decode(file, self.size, self.fit))
        labels, names = arrays["labels"], [str(name) for name in arrays["names"]]
        patients = np.unique([patient_of(name) for name in names], return_inverse=True)[1]
        rows = np.flatnonzero(np.isin(labels, [CLASS_NAMES.index(name) for name in self.classes]))
        new = np.zeros(len(CLASS_NAMES), np.int64)
        for name in self.classes:
            new[CLASS_NAMES.index(name)] = self.classes.index(name) if self.asked is None else int(name == self.asked)
        splits = {}
        for split, mine in folds_of(labels[rows], patients[rows], self.fold).items():
            own = rows[mine]
            splits[split] = Split(keep_region(np.array(arrays["images"][own]), self.region), new[labels[own]])
            self.patients[split], self.originals[split] = patients[own], arrays["originals"][own]
        return splits


def folds_of(labels: np.ndarray, patients: np.ndarray, fold: int) -> dict[str, np.ndarray]:
    """The rows of each split: fold `fold` tests, the next validates; no patient is in two."""
    from sklearn.model_selection import StratifiedGroupKFold

    cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SPLIT_SEED)
    parts = [held for _, held in cut.split(labels, labels, patients)]
    number = {"test": fold, "val": (fold + 1) % FOLDS}
    train = np.sort(np.concatenate([part for place, part in enumerate(parts) if place not in number.values()]))
    return {"train": train} | {split: np.sort(parts[place]) for split, place in number.items()}


def patient_of(name: str) -> str:
    """What tells one patient's images from another's: of ChestX-ray8 the number before the underscore; else the name
    without what follows where a patient has several."""
    if re.fullmatch(r"\d{8}_\d{3}\.png", name):
        return name[:8]
    stem = name.rsplit(".", 1)[0]
    if UUID.match(stem):
        return stem
    while (shorter := ENDINGS.sub("", stem)) != stem:
        stem = shorter
    return stem


def find_file(path: Path) -> Path:
    """The parquet file in one of FOLDERS.

    Raises:
        UsageError: it is not there.
    """
    for folder in FOLDERS:
        if found := sorted((path / folder).glob(f"{STEM}*.parquet")):
            return found[0]
    folders = ", ".join(f"{folder}/" for folder in FOLDERS)
    raise UsageError(
        f"{TITLE[0].upper()}{TITLE[1:]} were not found as {STEM}*.parquet in {folders} of {path}: set "
        "paths.data=FOLDER or ETUDES_DATA=FOLDER to where they are, or take data=digits_marked, which needs no "
        "download and whose marks are known."
    )


def decode(file: Path, size: int, fit: str) -> dict[str, np.ndarray]:
    """`images` uint8 (N, 1, size, size), `labels`, `names`, and `originals` (N, 5): see FACTS.

    Raises:
        UsageError: the file is damaged or holds something else.
    """
    import pyarrow.parquet as pq

    with damage_named(file, TITLE):
        rows = pq.ParquetFile(file).read().to_pylist()
        images = np.stack([fitted(row["image"]["bytes"], size, fit) for row in rows])
        facts = [
            [row["orig_width"], row["orig_height"], row["orig_bytes"], FORMATS.index(row["orig_format"]),
             MODES.index(row["orig_mode"])] for row in rows
        ]  # fmt: skip
        labels = np.array([row["label"] for row in rows], np.int64)
        if not set(labels.tolist()) <= set(range(len(CLASS_NAMES))):
            raise ValueError(f"labels {sorted(set(labels.tolist()))}")
        names = np.array([row["name"] for row in rows], np.str_)
        return {"images": images[:, None], "labels": labels, "names": names, "originals": np.array(facts, np.float64)}


def fitted(content: bytes, size: int, fit: str) -> np.ndarray:
    """A picture as grey uint8 (size, size)."""
    with Image.open(BytesIO(content)) as opened:
        picture = opened.convert("L")
    width, height = picture.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side)))
    if fit == "stretch":
        return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))
    scale = size / max(width, height)
    small = np.asarray(
        picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    )
    framed = np.zeros((size, size), np.uint8)
    top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed
