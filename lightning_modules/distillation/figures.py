"""The task's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.figures import save_captioned, to_picture
from reporting.figures import read_curves, save

GAPS = {
    "train/loss": "the student's steps",
    "train/discrepancy_generator": "the generator's steps",
    "val/discrepancy": "validation, made in train mode",
    "val/discrepancy_eval": "validation, made in evaluation mode",
}
ACCURACIES = ("val/agreement", "val/accuracy_oracle")


def save_fakes(path: Path, images: np.ndarray, opinions: np.ndarray, names: Sequence[str], levels: int) -> None:
    """Made-up images (N, C, H, W), each with the teacher's class and its probability (N, classes)."""
    captions = [f"{names[row.argmax()]} ({row.max():.0%})" for row in opinions]
    save_captioned(path, images, captions, levels, columns=8)


def save_moments(
    path: Path, moments: Sequence[np.ndarray], opinions: Sequence[np.ndarray], names: Sequence[str], levels: int
) -> None:
    """A row for each moment of the training: images from the same noise, with the teacher's class and probability."""
    columns = min(10, len(moments[0]))
    shape = (len(moments), columns)
    figure, axes = plt.subplots(*shape, figsize=(1.1 * columns, 1.4 * len(moments)), squeeze=False)
    for row, (images, found) in enumerate(zip(moments, opinions, strict=True)):
        for axis, image, p in zip(axes[row], images, found, strict=False):
            axis.imshow(to_picture(image, levels), interpolation="nearest")
            axis.set_xticks([], [])
            axis.set_yticks([], [])
            axis.set_xlabel(f"{names[p.argmax()]} ({p.max():.0%})", fontsize=7)
        axes[row, 0].set_ylabel("begin" if row == 0 else f"{row / (len(moments) - 1):.0%}", fontsize=9)
    save(figure, path)


def save_game(path: Path, metrics_csv: Path) -> bool:
    """Discrepancies of all players, and how often the networks agree, against batches; False with nothing to draw."""
    curves = read_curves(metrics_csv)
    if not any(name in curves for name in GAPS):
        return False
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, label in GAPS.items():
        if name in curves:
            left.plot(*zip(*curves[name], strict=True), label=label)
    left.set_yscale("log")
    left.set_ylabel("discrepancy of the logits")
    for name in ACCURACIES:
        if name in curves:
            right.plot(*zip(*curves[name], strict=True), label=name)
    right.set_ylabel("share")
    right.set_ylim(0, 1.02)
    for axis in (left, right):
        axis.set_xlabel("batches")
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)
    return True


def save_classes(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """How many made-up images the teacher takes for each class."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axis.bar(range(len(names)), counts, color="tab:blue")
    axis.axhline(counts.sum() / len(names), color="black", linestyle="--", linewidth=1, label="in balance")
    step = 1 if len(names) <= 25 else 10
    axis.set_xticks(range(0, len(names), step), names[::step], rotation=45 if len(max(names, key=len)) > 2 else 0)
    axis.set_ylabel("made-up images")
    axis.legend()
    save(figure, path)


def save_neighbours(
    path: Path, places: np.ndarray, classes: np.ndarray, kinds: Mapping[str, slice], names: Sequence[str]
) -> None:
    """t-SNE places (N, 2), coloured by kind and by the teacher's class (N,)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for (kind, own), colour, marker in zip(kinds.items(), ("tab:blue", "tab:orange"), "ox", strict=True):
        left.scatter(*places[own].T, s=12, color=colour, marker=marker, label=kind, linewidths=0.8)
        right.scatter(*places[own].T, s=12, c=classes[own], cmap="tab10" if len(names) <= 10 else "nipy_spectral",
                      vmin=0, vmax=len(names) - 1, marker=marker, linewidths=0.8)  # fmt: skip
    left.legend()
    left.set_title("real and made-up images")
    right.set_title("the teacher's class")
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    save(figure, path)
