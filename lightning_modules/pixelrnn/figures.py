"""The task's own figures: completions, samples by step, bits by pixel, receptive fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from reporting.figures import image_grid, save


def save_completions(path: Path, real: np.ndarray, drawn: np.ndarray, first_row: int, levels: int) -> None:
    """One row an image: the part given, its completions, and the real image.

    Args:
        real: (N, C, H, W).
        drawn: (N, draws, C, H, W).
        first_row: the first row drawn; below it the given part is shown in mid-grey.
    """
    given = real.copy()
    given[:, :, first_row:] = (levels - 1) // 2
    table = np.concatenate([given[:, None], drawn, real[:, None]], axis=1)
    columns = table.shape[1]
    grid = image_grid(table.reshape(-1, *real.shape[1:]), levels, columns=columns)
    figure, axis = plt.subplots(figsize=(1.1 * columns + 0.5, 1.1 * len(real) + 0.5))
    axis.imshow(grid, interpolation="nearest")
    titles = ["given", *[f"drawn {number}" for number in range(1, columns - 1)], "real"]
    axis.set_xticks((np.arange(columns) + 0.5) * grid.shape[1] / columns, titles)
    axis.xaxis.tick_top()
    axis.tick_params(length=0, left=False, labelleft=False)
    save(figure, path)


def save_snapshots(path: Path, snapshots: Mapping[int, np.ndarray], levels: int) -> None:
    """Samples drawn during training, each grid under the number of steps trained."""
    figure, axes = plt.subplots(1, len(snapshots), figsize=(2.6 * len(snapshots), 2.9), squeeze=False)
    for axis, (step, images) in zip(axes[0], sorted(snapshots.items()), strict=True):
        axis.imshow(image_grid(images, levels), interpolation="nearest")
        axis.set_title(f"{step} steps")
        axis.axis("off")
    save(figure, path)


def save_pixel_bits(path: Path, bits: np.ndarray) -> None:
    """Mean bits spent on each pixel, all its colours together: (H, W).

    The scale ends at the 98th percentile: the first pixels, which nothing is known about, would darken all others.
    """
    figure, axis = plt.subplots(figsize=(4.6, 4))
    drawn = axis.imshow(bits, cmap="magma", vmax=np.quantile(bits, 0.98))
    figure.colorbar(drawn, label="bits per pixel", extend="max")
    axis.set_xticks([])
    axis.set_yticks([])
    save(figure, path)


def save_receptive_fields(path: Path, fields: Mapping[str, np.ndarray], row: int, column: int) -> None:
    """Receptive fields (H, W) side by side on one logarithmic scale; pixels that are not seen at all stay white."""
    strongest = max(field.max() for field in fields.values()) or 1.0
    norm = LogNorm(strongest * 1e-6, strongest, clip=True)
    figure, axes = plt.subplots(1, len(fields), figsize=(3.6 * len(fields) + 0.8, 3.8), squeeze=False)
    for axis, (title, field) in zip(axes[0], fields.items(), strict=True):
        drawn = axis.imshow(np.ma.masked_equal(field, 0), norm=norm, cmap="viridis")
        axis.plot(column, row, "s", markersize=5, markerfacecolor="none", markeredgecolor="red")
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes, label="mean |d log p / d intensity|", shrink=0.8)
    save(figure, path)
