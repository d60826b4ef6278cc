"""Pictures of several attacked networks: curves against ε, the matrix of transfer, spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from reporting.figures import save


def save_curves(path: Path, curves: Mapping[str, Sequence[Mapping[float, float]]]) -> None:
    """Of each setting its seeds' accuracy by ε; thick their mean, where all were tried at the same sizes."""
    figure, axis = plt.subplots(figsize=(6.5, 4.4))
    for number, (name, seeds) in enumerate(curves.items()):
        for points in seeds:
            axis.plot(list(points), list(points.values()), color=f"C{number}", linewidth=0.8, alpha=0.5)
        sizes = list(seeds[0])
        if all(list(points) == sizes for points in seeds):
            middle = np.mean([list(points.values()) for points in seeds], axis=0)
            axis.plot(sizes, middle, "o-", color=f"C{number}", linewidth=2, markersize=4, label=name)
    axis.set_xlabel("ε, intensities 0 … 1")
    axis.set_ylabel("accuracy under PGD")
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def save_transfer(path: Path, shares: np.ndarray, names: Sequence[str]) -> None:
    """Shares right (crafted on, tested on); dark: what fools the one fools the other."""
    side = 2.2 + 1.1 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    drawn = axis.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("tested on")
    axis.set_ylabel("crafted on")
    for (row, column), value in np.ndenumerate(shares):
        text = "–" if np.isnan(value) else f"{value:.0%}"
        axis.text(column, row, text, ha="center", va="center", color="white" if value < 0.6 else "black")
    figure.colorbar(drawn, ax=axis, label="share right", fraction=0.046)
    save(figure, path)


def save_spectra(path: Path, spectra: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Of each setting the power of its perturbations by frequency; thin the seeds, thick their mean."""
    figure, axis = plt.subplots(figsize=(6.5, 4.4))
    axis.axhline(1, color="grey", linestyle="--", linewidth=1, label="white noise")
    for number, (name, seeds) in enumerate(spectra.items()):
        for radii, power in seeds:
            axis.plot(radii, power, color=f"C{number}", linewidth=0.8, alpha=0.5)
        radii, middle = seeds[0][0], np.mean([power for _, power in seeds], axis=0)
        axis.plot(radii, middle, "o-", color=f"C{number}", linewidth=2, markersize=4, label=name)
    axis.set_xlabel("spatial frequency, cycles a pixel")
    axis.set_ylabel("power, multiples of white noise's")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)
