"""The task's pictures: similarities of images and names, and embeddings that an attack moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from reporting.figures import save

SMALL_NAMES = 25  # more of them are written smaller


def save_similarities(
    path: Path, images: np.ndarray, texts: np.ndarray, names: Sequence[str], held_out: Sequence[int]
) -> None:
    """Cosines (classes, classes) of each class's mean image (rows) and each name (columns)."""
    side = 6.5 if len(names) <= SMALL_NAMES else 9.5
    figure, axis = plt.subplots(figsize=(side, side))
    shown = axis.imshow(images @ texts.T, cmap="RdBu_r", vmin=-1, vmax=1)
    size = 9 if len(names) <= SMALL_NAMES else 6 if len(names) <= 70 else 4
    shorter = [name.replace("_", " ") for name in names]
    axis.set_xticks(range(len(names)), shorter, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), shorter, fontsize=size)
    for number in held_out:
        for label in (axis.get_xticklabels()[number], axis.get_yticklabels()[number]):
            label.set_color("tab:red")
    axis.set_xlabel("name")
    axis.set_ylabel("mean image of")
    figure.colorbar(shown, shrink=0.7, label="cosine")
    save(figure, path)


def save_arrows(path: Path, names: np.ndarray, clean: np.ndarray, moved: np.ndarray, labels: np.ndarray) -> None:
    """Names (K, D), and images (N, D) from clean to attacked, in the names' two principal directions."""
    centre = names.mean(0)
    directions = np.linalg.svd(names - centre, full_matrices=False)[2][:2].T
    flat_names, start, end = ((points - centre) @ directions for points in (names, clean, moved))
    colours = plt.get_cmap("hsv")(np.arange(len(names)) / len(names))
    figure, axis = plt.subplots(figsize=(7.5, 6.5))
    axis.scatter(*flat_names.T, marker="x", c=colours, s=45, linewidths=1.2, label="names")
    axis.scatter(*start.T, c=colours[labels], s=18, edgecolors="black", linewidths=0.4, label="images, clean", zorder=3)
    axis.quiver(*start.T, *(end - start).T, color=colours[labels], angles="xy", scale_units="xy", scale=1, width=0.003)
    axis.set_xlabel("first direction")
    axis.set_ylabel("second direction")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)
