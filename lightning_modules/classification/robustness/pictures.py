"""The stage's pictures: images beside their adversarial forms, accuracy against ε, what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.figures import to_picture
from reporting.figures import save

ROWS = 6


def save_adversaries(
    path: Path, images: np.ndarray, moved: np.ndarray, captions: Sequence[tuple[str, str]], levels: int, eps: float
) -> None:
    """A row for each image (N, C, H, W): itself, the difference made visible, the adversarial one; captions under the
    first and the last."""
    count = min(ROWS, len(images))
    figure, axes = plt.subplots(count, 3, figsize=(5.4, 1.95 * count), squeeze=False)
    scale = 0.5 / max(eps, 1e-9)
    for row in range(count):
        before, after = (to_picture(some[row], levels) for some in (images, moved))
        difference = np.clip(0.5 + scale * (after - before), 0, 1)
        for axis, shown in zip(axes[row], (before, difference, after), strict=True):
            axis.imshow(shown, interpolation="nearest")
            axis.axis("off")
        for column, caption in zip((0, 2), captions[row], strict=True):
            axes[row, column].text(0.5, -0.04, caption, transform=axes[row, column].transAxes, ha="center", va="top",
                                   fontsize=8)  # fmt: skip
    for axis, title in zip(axes[0], ("original", f"difference × {scale:.0f}", "adversarial"), strict=True):
        axis.set_title(title, fontsize=9)
    save(figure, path)


def save_curve(path: Path, sizes: Sequence[float], shares: Sequence[float], chance: float, norm: str) -> None:
    """Accuracy under PGD against ε, chance beside it."""
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.plot(sizes, shares, "o-", label="under PGD")
    axis.axhline(chance, color="grey", linestyle="--", linewidth=1, label="chance")
    axis.set_xlabel(f"ε ({norm}, intensities 0 … 1)")
    axis.set_ylabel("accuracy")
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def save_distances(path: Path, distances: np.ndarray) -> None:
    """How far Carlini and Wagner's attack had to go: a histogram, the median marked."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    axis.hist(distances, bins=30, color="tab:blue", alpha=0.75)
    axis.axvline(np.median(distances), color="black", linestyle="--", label=f"median {np.median(distances):.3f}")
    axis.set_xlabel("L2 distance of the nearest adversarial image, intensities 0 … 1")
    axis.set_ylabel("images")
    axis.legend()
    save(figure, path)


def save_surfaces(path: Path, surfaces: np.ndarray, reach: float) -> None:
    """The loss around images (N, points, points), side by side, each with a scale of colours of its own."""
    shape = {"figsize": (3.3 * len(surfaces), 3.1), "squeeze": False, "layout": "constrained", "sharey": True}
    figure, axes = plt.subplots(1, len(surfaces), **shape)
    ends, ticks = (-reach, reach), ([-reach, 0, reach], ["−ε", "0", "ε"])
    for number, (axis, surface) in enumerate(zip(axes[0], surfaces, strict=True)):
        drawn = axis.imshow(surface, origin="lower", extent=(*ends, *ends), cmap="magma", interpolation="bilinear")
        axis.plot(0, 0, "w+", markersize=8)
        axis.set_xticks(*ticks)
        axis.set_yticks(*ticks)
        axis.set_xlabel("along random signs")
        axis.set_title(f"test image {number}", fontsize=9)
        figure.colorbar(drawn, ax=axis, fraction=0.046).ax.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("along the gradient's sign")
    save(figure, path)
