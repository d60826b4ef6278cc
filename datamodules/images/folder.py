"""A folder of one's own pictures, of any kind and size, brought to one size."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.spec import ImageSpec

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # by content; without those that run a program, as EPS does
MODES = {1: "L", 3: "RGB"}
SPLIT_SEED = 0
# Pillow warns from 89 million pixels, less than a 10,000×10,000 scan, because a small file can claim to be a picture
# that fills the memory. This limit leaves room for every usual camera and scanner; to decode it takes 1 to 3 GB.
MAX_PIXELS = 200_000_000
ORIENTATION = 0x0112  # the EXIF tag: how a camera was held, to be undone
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        with _large_pictures():
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


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Pictures of up to MAX_PIXELS open without a warning, larger ones raise; Pillow's own limit comes back after."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but harmless tags
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_picture(file: Path, channels: int, height: int, width: int, crop: bool) -> np.ndarray:
    """A picture file as uint8 (C, H, W), upright. It is made small before all else, so that no second large copy is.

    Raises:
        Exception: of many kinds; the file cannot be read.
    """
    with Image.open(file, formats=FORMATS) as picture:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 where that is still twice what is needed, either way up.
        picture.draft(None, (2 * max(height, width),) * 2)
        picture.load()
        orientation = picture.getexif().get(ORIENTATION, 1)
        size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
        box = centre(picture.size, size) if crop else None
        small = _plain(picture).resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    if orientation in UPRIGHT:
        small = small.transpose(UPRIGHT[orientation])
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    pixels = np.asarray(small.convert(MODES[channels]))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def read_upright(file: Path, channels: int) -> Image.Image:
    """A picture file at its own size, upright, in grey (1 channel) or colour (3); transparent parts become white.

    Raises:
        Exception: of many kinds; the file cannot be read.
    """
    with Image.open(file, formats=FORMATS) as picture:
        picture.load()
        plain, orientation = _plain(picture), picture.getexif().get(ORIENTATION, 1)
    if orientation in UPRIGHT:
        plain = plain.transpose(UPRIGHT[orientation])
    if plain.mode == "RGBA":
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
    return plain.convert(MODES[channels])


def _plain(picture: Image.Image) -> Image.Image:
    """The picture as L, RGB, RGBA or CMYK, whose values can be averaged.

    Raises:
        ValueError: its values have no known range.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("its values are neither 8 nor 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))  # Pillow's own conversion would cut off at 255
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBa"):
        return picture.convert("RGBA")
    if picture.mode in ("L", "RGB", "RGBA", "CMYK"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def centre(have: tuple[int, int], want: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest box (left, top, right, bottom) in the middle of `have`, (width, height), that looks like `want`."""
    scale = min(have[0] / want[0], have[1] / want[1])
    left, top = (max(0.0, (old - new * scale) / 2) for old, new in zip(have, want, strict=True))
    return left, top, have[0] - left, have[1] - top


def read_folder(folder: Path, height: int, width: int) -> dict[str, np.ndarray]:
    """Name → uint8 (3, height, width) of a folder's pictures, upright and made that large; the option `images`.

    Raises:
        UsageError: there is no folder, no picture in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder images='{folder}': give one with PNG or JPEG files.")
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        try:
            small = read_upright(path, channels=3).resize((width, height), Image.Resampling.BILINEAR)
        except Exception as error:  # of many kinds
            raise UsageError(f"'{path}' cannot be read as an image: take it out of the folder.") from error
        found[path.stem] = np.asarray(small).transpose(2, 0, 1)
    if not found:
        raise UsageError(f"images='{folder}' holds no {', '.join(SUFFIXES)} file: give a folder that does.")
    return found
