"""Picture files of any kind, as upright pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # by content; without those that run a program, as EPS does
MODES = {1: "L", 3: "RGB"}
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


@contextmanager
def large_pictures() -> Iterator[None]:
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
        small = plain(picture).resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    pixels = np.asarray(upright(small, orientation, channels))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def read_upright(file: Path, channels: int) -> Image.Image:
    """A picture file at its own size, upright, in grey (1 channel) or colour (3); transparent parts become white.

    Raises:
        Exception: of many kinds; the file cannot be read.
    """
    with Image.open(file, formats=FORMATS) as picture:
        picture.load()
        return upright(plain(picture), picture.getexif().get(ORIENTATION, 1), channels)


def upright(picture: Image.Image, orientation: int, channels: int) -> Image.Image:
    """A plain picture as it was held, in grey (1 channel) or colour (3); transparent parts become white."""
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(MODES[channels])


def plain(picture: Image.Image) -> Image.Image:
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
