"""Parts of images: what is left of a figure when a network sees the centre alone, or all but it, or an edge."""

from __future__ import annotations

import numpy as np

from datamodules.errors import UsageError, did_you_mean

REGIONS = ("whole", "centre", "no_centre", "border")
ROWS, COLUMNS = (0.15, 0.85), (0.10, 0.90)  # of the centre, 56 % of the image
BORDER = 0.094  # of each side: 12 of 128 pixels
LEAST = 16  # pixels a side: below, a border is less than two pixels


def check_region(region: str) -> None:
    """Raises UsageError when there is no such region."""
    if region not in REGIONS:
        raise UsageError(f"data.region is {region!r}{did_you_mean(str(region), REGIONS)}: choose {', '.join(REGIONS)}.")


def region_mask(region: str, height: int, width: int) -> np.ndarray:
    """Which pixels (H, W) the region holds.

    Raises:
        UsageError: the images are too small to have regions.
    """
    if region != "whole" and min(height, width) < LEAST:
        raise UsageError(
            f"data.region={region} needs images of {LEAST} pixels a side or more, but these are {height}×{width}: "
            "choose data.region=whole."
        )
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    centre = (rows >= round(ROWS[0] * height)) & (rows < round(ROWS[1] * height))
    centre = centre & (columns >= round(COLUMNS[0] * width)) & (columns < round(COLUMNS[1] * width))
    down, right = max(1, round(BORDER * height)), max(1, round(BORDER * width))
    inner = (rows >= down) & (rows < height - down) & (columns >= right) & (columns < width - right)
    return {"whole": centre | True, "centre": centre, "no_centre": ~centre, "border": ~inner}[region]


def keep_region(images: np.ndarray, region: str, levels: int = 256) -> np.ndarray:
    """Images (N, C, H, W) of which only the region is left; the rest has the middle intensity, 127 of 255."""
    if region == "whole":
        return images
    mask = region_mask(region, *images.shape[2:])
    return np.where(mask, images, np.asarray(127 * (levels - 1) // 255, images.dtype))
