"""A folder of one's own pictures, of any kind and size, brought to one size."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.images.shared.pictures import MODES, SUFFIXES, large_pictures, read_picture
from datamodules.spec import ImageSpec

log = logging.getLogger(__name__)

SPLIT_SEED = 0


class Images(ImageDataModule):
    """`data=images data.path=FOLDER`: the folder's pictures, its subfolders' too, each of 256 levels.

    Where every picture lies in one of several subfolders, these are the classes, in the order of their names, as
    torchvision's ImageFolder reads them; else no picture has a label.

    Args:
        path: the folder; png, jpg, jpeg, webp, bmp, gif (the first frame) and tif files, hidden ones left out.
        cache: the folder for the decoded arrays, `paths.cache`.
        size: height and width in pixels: one number for a square, or [height, width].
        fit: crop scales the shorter side to the size and cuts the rest off on both sides; stretch changes proportions.
        channels: 3 for colour, 1 for grey. Transparent parts become white.
        val_fraction, test_fraction: shares of the pictures, at least one each. The division is drawn from a fixed
            seed over the pictures in the order of their names: the same one in every run.
        max_unreadable: so many pictures that cannot be read are named in the log and left out; more are an error.
    """

    def __init__(
        self,
        path: str | None,
        cache: str,
        size: int | Sequence[int] = 32,
        fit: str = "crop",
        channels: int = 3,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        max_unreadable: int = 10,
        batch_size: int = 16,
        eval_batch_size: int = 100,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        if path is None:
            raise UsageError("data=images needs data.path=FOLDER, the folder of pictures.")
        sides = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else [size, size]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise UsageError(f"data.size is {size!r}, but it must be a number of pixels or [height, width].")
        if fit not in (known := ("crop", "stretch")):
            raise UsageError(f"data.fit is {fit!r}{did_you_mean(str(fit), known)}: choose crop or stretch.")
        if channels not in MODES:
            raise UsageError(f"data.channels is {channels!r}, but it must be 3 (colour) or 1 (grey).")
        for name, share in {"val_fraction": val_fraction, "test_fraction": test_fraction}.items():
            if not isinstance(share, int | float) or not 0 < share < 1:
                raise UsageError(f"data.{name} is {share!r}, but it must be between 0 and 1.")
        if not isinstance(max_unreadable, int) or max_unreadable < 0:
            raise UsageError(f"data.max_unreadable is {max_unreadable!r}, but it must be a whole number, 0 or more.")
        self.path, self.cache = (Path(str(folder)).expanduser().absolute() for folder in (path, cache))
        (self.height, self.width), self.fit, self.channels = sides, fit, channels
        self.fractions = val_fraction, test_fraction
        self.max_unreadable = max_unreadable
        self._note, self._classes = "", []

    @property
    def spec(self) -> ImageSpec:
        """`classes` is known once the folder was read."""
        return ImageSpec(self.channels, self.height, self.width, levels=256, classes=len(self._classes))

    @property
    def class_names(self) -> list[str]:
        return list(self._classes)

    @property
    def note(self) -> str:
        return self._note

    def load_splits(self) -> dict[str, Split]:
        images, labels = self.labelled()
        splits = divide(len(images), *self.fractions, self.path)
        return {name: Split(images[rows], labels[rows]) for name, rows in splits.items()}

    def labelled(self) -> Split:
        """All readable pictures in the order of their names, and their labels, all 0 without classes."""
        files = find_pictures(self.path)
        arrays = cached_arrays(self.cache, "images", self._key(files), lambda: self._decode(files))
        images, unreadable = arrays["images"], arrays["unreadable"].tolist()
        self._refuse(unreadable)
        if unreadable:
            self._note = f"{len(unreadable)} of {len(files)} pictures cannot be read and are left out"
            log.warning("In %s %s: %s.", self.path, self._note, ", ".join(unreadable))
        names, labels = subfolder_classes([files[row] for row in arrays["rows"]], self.path)
        self._classes = names
        return Split(images, labels)

    def _key(self, files: list[Path]) -> dict[str, Any]:
        """Names, sizes and times of change stand for the content: to read all of a large folder at every start would
        take minutes, and a copy whose times differ only costs decoding once more."""
        stats = [(file.relative_to(self.path).as_posix(), file.stat()) for file in files]
        listing = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        files_key = {"count": len(files), "sha256": hashlib.sha256(listing.encode()).hexdigest()}
        return {"files": files_key, "shape": self.spec.shape, "fit": self.fit, "kept": ["images", "rows"]}

    def _decode(self, files: list[Path]) -> dict[str, np.ndarray]:
        """`images` uint8 (N, C, H, W) in the order of the files, `rows`: the number of each one's file (N,), and
        `unreadable`: name and reason of the others.

        Raises:
            UsageError: more than `max_unreadable` cannot be read.
        """
        from rich.console import Console
        from rich.progress import track

        images = np.empty((len(files), *self.spec.shape), np.uint8)
        rows, unreadable = [], []
        progress = {"console": Console(stderr=True), "disable": not sys.stderr.isatty(), "transient": True}
        with large_pictures():
            for number, file in enumerate(track(files, f"Decoding {self.path.name}", **progress)):
                try:
                    images[len(rows)] = read_picture(file, *self.spec.shape, crop=self.fit == "crop")
                    rows.append(number)
                except Exception as error:  # a damaged file makes its parser raise almost anything
                    reason = str(error).replace(f" {str(file)!r}", "").split("\n")[0] or type(error).__name__
                    unreadable.append(f"{file.relative_to(self.path).as_posix()} ({reason})")
                    self._refuse(unreadable)
        kept = {"images": images[: len(rows)], "rows": np.array(rows, np.int64)}
        return {**kept, "unreadable": np.array(unreadable, dtype=np.str_)}

    def _refuse(self, unreadable: list[str]) -> None:
        if len(unreadable) > self.max_unreadable:
            raise UsageError(
                f"In {self.path} more than {self.max_unreadable} pictures cannot be read: "
                f"{', '.join(unreadable[:3])} … Mend or remove them, or have them left out with data.max_unreadable=N."
            )


def find_pictures(folder: Path) -> list[Path]:
    """The picture files in `folder` and its subfolders, in the order of their names.

    Raises:
        UsageError: it is missing, no folder, or has none.
    """
    if not folder.is_dir():
        fault = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"data.path={folder} {fault}: set it to the folder of pictures.")
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise UsageError(f"data.path={folder} has no pictures: none of its files ends in {', '.join(SUFFIXES)}.")
    return files


def subfolder_classes(files: Sequence[Path], folder: Path) -> tuple[list[str], np.ndarray]:
    """The classes that the subfolders of `folder` make, and each file's (N,), as torchvision's ImageFolder has them: a
    class is a subfolder, whatever lies deeper is its, and the names are in order. No classes, and labels all 0, where
    a file lies in no subfolder, or all in one."""
    own = [file.relative_to(folder).parts for file in files]
    names = sorted({parts[0] for parts in own})
    if len(names) < 2 or any(len(parts) < 2 for parts in own):
        return [], np.zeros(len(files), np.int64)
    return names, np.array([names.index(parts[0]) for parts in own], np.int64)


def divide(items: int, val_fraction: float, test_fraction: float, folder: Path) -> dict[str, np.ndarray]:
    """The rows of each split, in order: shares of a permutation from a fixed seed, at least one row each.

    Raises:
        UsageError: there are fewer than three items, or the shares leave none to train.
    """
    if items < 3:
        raise UsageError(
            f"data.path={folder} has {items} readable picture{'s' if items != 1 else ''}, but at least 3 are needed: "
            f"one each to train, validate and test."
        )
    val, test = (max(1, round(items * fraction)) for fraction in (val_fraction, test_fraction))
    if val + test >= items:
        raise UsageError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} of {items} pictures leave none "
            f"to train: choose smaller ones."
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(items)
    parts = {"train": order[val + test :], "val": order[:val], "test": order[val : val + test]}
    return {name: np.sort(rows) for name, rows in parts.items()}
