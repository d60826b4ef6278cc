"""Figures: grids of images, and the curves of a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from datamodules.files import whole_file

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SPLITS = ("train", "val", "test")


def image_grid(images: np.ndarray, levels: int, columns: int | None = None, border: int = 1) -> np.ndarray:
    """Integer images (N, C, H, W) of 1 or 3 channels → one uint8 picture (h, w, 3).

    As square as N allows unless `columns` says how many stand side by side. A border of its own colour stands
    between images, so that a dark image's edge is seen.
    """
    count, _, height, width = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    colour = np.array([90, 110, 160], dtype=np.uint8)
    grid = np.tile(colour, (rows * (height + border) + border, columns * (width + border) + border, 1))
    bright = np.round(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8).transpose(0, 2, 3, 1)
    for number, image in enumerate(bright):
        row, column = divmod(number, columns)
        top, left = border + row * (height + border), border + column * (width + border)
        grid[top : top + height, left : left + width] = image
    return grid


def save_grids(path: Path, grids: Mapping[str, np.ndarray], levels: int, columns: int | None = None) -> None:
    """Grids of images side by side, each under its title."""
    figure, axes = plt.subplots(1, len(grids), figsize=(5 * len(grids), 5.3), squeeze=False)
    for axis, (title, images) in zip(axes[0], grids.items(), strict=True):
        axis.imshow(image_grid(images, levels, columns), interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    save(figure, path)


def read_curves(metrics_csv: Path) -> dict[str, list[tuple[int, float]]]:
    """metrics.csv → for each metric its (step, value) pairs."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with metrics_csv.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves


def save_curves(path: Path, metrics_csv: Path, metrics: Sequence[str]) -> bool:
    """Each of `metrics` (say bits_per_dim) of every split against training steps; False with nothing to draw.

    A metric that is 0 throughout, as a term of the loss that this network has not, is left out.
    """
    curves = read_curves(metrics_csv)
    metrics = [name for name in metrics if any(v for split in SPLITS for _, v in curves.get(f"{split}/{name}", []))]
    if not metrics:
        return False
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(7 if len(metrics) == 1 else 5 * len(metrics), 4), squeeze=False
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        for split in SPLITS:
            if points := curves.get(f"{split}/{metric}"):
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, "o" if len(points) == 1 else "-", label=split)
        axis.set_xlabel("training steps")
        axis.set_title(metric.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)
    return True


def save(figure: plt.Figure, path: Path) -> None:
    """Writes a figure, whole or not at all, and closes it."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
