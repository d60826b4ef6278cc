"""Random flips and crops of a batch of images at once."""

from __future__ import annotations

import numpy as np

from datamodules.errors import UsageError

FLIPS = ("none", "random", "alternating")
FLIP_STREAM = 0x666C6970  # tells the draw of the alternating flips from the others of the same seed


class FlipAndCrop:
    """Mirrors images from left to right, and moves them by up to `padding` pixels, edges reflected.

    Args:
        flip: `none`; `random`: each image with probability ½, drawn anew every epoch; `alternating`: so drawn in the
            first epoch, then the other way round every epoch, so that two epochs show every image both ways
            (Jordan, arXiv 2404.00498, section 3.6).
        padding: pixels, both ways; 0: no crop.
        seed: of the alternating flips.

    Raises:
        UsageError: no such flip, or a padding that cannot be reflected.
    """

    def __init__(self, flip: str, padding: int, seed: int):
        if flip not in FLIPS:
            raise UsageError(f"data.flip is {flip!r}, but it must be one of {', '.join(FLIPS)}.")
        if not isinstance(padding, int) or padding < 0:
            raise UsageError(f"data.crop_padding is {padding!r}, but it must be a whole number of pixels, 0 or more.")
        self.flip, self.padding, self.seed = flip, padding, seed
        self._first = np.empty(0, np.uint8)  # the first epoch's flips of the rows up to the largest asked for

    def __call__(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Images (B, C, H, W) → the same number, shape and type; neither `images` nor what they view is written to.

        Args:
            rng: a function of (seed, epoch, batch number).
            rows: each image's number in its split.
            epoch: from 0.
        """
        down, right, flips = self.drawn(rng, rows, epoch)
        if self.padding:
            images = cropped(images, self.padding, down, right)
        return images if self.flip == "none" else mirrored(images, flips)

    def drawn(
        self, rng: np.random.Generator, rows: np.ndarray, epoch: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each image the place of its crop (down, right), 0 … 2·padding, and whether it is mirrored; each (B,)."""
        size = (2, len(rows))
        down, right = rng.integers(0, 2 * self.padding + 1, size) if self.padding else np.zeros(size, np.int64)
        if self.flip == "none":
            return down, right, np.zeros(len(rows), bool)
        flips = self._first_flips(rows) ^ bool(epoch % 2) if self.flip == "alternating" else rng.random(len(rows)) < 0.5
        return down, right, flips

    def _first_flips(self, rows: np.ndarray) -> np.ndarray:
        """Which images are mirrored in the first epoch: a function of (seed, row), whatever the split's size."""
        if rows.max() >= len(self._first):
            drawn = np.random.default_rng((self.seed, FLIP_STREAM))
            self._first = drawn.integers(0, 2, 2 * (int(rows.max()) + 1), np.uint8)
        return self._first[rows] == 1


def mirrored(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Images (B, C, H, W), those that the mask `which` (B,) names from right to left."""
    return np.where(which[:, None, None, None], images[..., ::-1], images)


def cropped(images: np.ndarray, padding: int, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Windows of the images' size at (down, right) in the images padded by reflection; both (B,), 0 … 2·padding.

    Raises:
        UsageError: an edge is shorter than its reflection.
    """
    height, width = images.shape[2:]
    check_padding(padding, height, width)
    edges = (padding, padding)
    padded = np.pad(images, ((0, 0), (0, 0), edges, edges), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(len(images)), :, down, right]


def check_padding(padding: int, height: int, width: int) -> None:
    """Raises UsageError when an edge of the images is shorter than its reflection."""
    if padding >= min(height, width):
        raise UsageError(
            f"data.crop_padding is {padding}, but images of {height}×{width} allow at most {min(height, width) - 1}."
        )
