"""The task's pictures: confusion matrices, mistakes, calibration, feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.analysis import BINS, Reliability
from reporting.figures import save

MANY = 25  # classes, whose names are written small beyond it
MAPS_SIDE = 4  # the strongest maps of a layer that are shown, squared


def draw_matrix(axis: plt.Axes, counts: np.ndarray, names: Sequence[str], title: str, signed: bool = False) -> None:
    """Counts of (class, taken for); colours are shares of the class. `signed`: differences, red more and blue less."""
    shares = counts / np.maximum(1, np.abs(counts).sum(1, keepdims=True))
    if signed:
        strongest = max(1, np.abs(counts).max())
        axis.imshow(counts, cmap="RdBu_r", vmin=-strongest, vmax=strongest)
        dark = np.abs(counts) > 0.6 * strongest
    else:
        # The square root, so that confusions of a few per cent show beside the diagonal.
        axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        dark = shares > 0.35
    ticks = range(len(names))
    if len(names) > MANY:
        axis.set_xticks(ticks, names, rotation=90, fontsize=5)
        axis.set_yticks(ticks, names, fontsize=5)
    else:
        axis.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, names)
    axis.set_xlabel("taken for")
    axis.set_ylabel("is")
    axis.set_title(title)
    if len(names) <= MANY:
        size = 9 if len(names) <= 10 else 5
        for (row, column), count in np.ndenumerate(counts):
            if count:
                text = f"{count:+d}" if signed else f"{count:d}"
                colour = "white" if dark[row, column] else "black"
                axis.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def save_matrix(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    figure, axis = plt.subplots(figsize=(7, 6.5))
    draw_matrix(axis, counts, names, "")
    save(figure, path)


def to_picture(image: np.ndarray, levels: int) -> np.ndarray:
    """An image (C, H, W) of 1 or 3 channels, 0 … levels−1 → (H, W, 3) from 0 to 1."""
    return np.broadcast_to(image.transpose(1, 2, 0) / (levels - 1), (*image.shape[1:], 3))


def save_captioned(path: Path, images: np.ndarray, captions: Sequence[str], levels: int, columns: int = 6) -> None:
    """Images (N, C, H, W), each with a caption under it."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 2.15 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(to_picture(image, levels), interpolation="nearest")
        axis.text(0.5, -0.04, caption, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    save(figure, path)


def save_reliability(path: Path, found: Reliability) -> None:
    """Accuracy against confidence, interval by interval, above how many images each interval holds."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(5.5, 6), sharex=True, height_ratios=(3, 1))
    middles = (np.arange(BINS) + 0.5) / BINS
    filled = found.counts > 0
    top.bar(middles[filled], found.accuracy[filled], 0.92 / BINS, color="tab:blue", alpha=0.75, label="share right")
    top.plot([0, 1], [0, 1], "k--", linewidth=1, label="perfectly calibrated")
    top.plot(found.confidence[filled], found.accuracy[filled], ".", color="tab:red", label="mean confidence of the bin")
    top.set_ylabel("share right")
    top.set_ylim(0, 1)
    top.set_xlim(0, 1)
    top.legend(loc="upper left")
    bottom.bar(middles, found.counts, 0.92 / BINS, color="grey")
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence: the probability of the class it names")
    save(figure, path)


def mosaic(maps: np.ndarray) -> np.ndarray:
    """The strongest of a layer's maps (width, h, w), each scaled from 0 to its own maximum, side by side."""
    chosen = np.argsort(-maps.mean((1, 2)), kind="stable")[: MAPS_SIDE**2]
    height, width = maps.shape[1:]
    # A border of a tenth of a map, at least one pixel: the maps of late layers are small.
    edge = max(1, height // 10)
    grid = np.full((MAPS_SIDE * (height + edge) + edge, MAPS_SIDE * (width + edge) + edge), np.nan)
    for number, channel in enumerate(chosen):
        row, column = divmod(number, MAPS_SIDE)
        top, left = edge + row * (height + edge), edge + column * (width + edge)
        grid[top : top + height, left : left + width] = maps[channel] / max(maps[channel].max(), 1e-12)
    return grid


def save_maps(
    path: Path, images: np.ndarray, captions: Sequence[str], layers: Mapping[str, np.ndarray], levels: int
) -> None:
    """A row for each image (N, C, H, W): itself, then the strongest maps of each layer (N, width, h, w)."""
    shape = (len(images), 1 + len(layers))
    figure, axes = plt.subplots(*shape, figsize=(2.4 * shape[1], 2.6 * shape[0]), squeeze=False)
    colours = plt.get_cmap("viridis").with_extremes(bad="white")
    for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes[row, 0].imshow(to_picture(image, levels), interpolation="nearest")
        axes[row, 0].text(0.5, -0.04, caption, transform=axes[row, 0].transAxes, ha="center", va="top", fontsize=9)
        for axis, (name, maps) in zip(axes[row, 1:], layers.items(), strict=True):
            axis.imshow(mosaic(maps[row]), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            if row == 0:
                axis.set_title(
                    f"{name}\n{MAPS_SIDE**2} of {maps.shape[1]}, {maps.shape[2]}×{maps.shape[3]}", fontsize=9
                )
    for axis in axes.flat:
        axis.axis("off")
    save(figure, path)
