"""The task's pictures: masks in colour with a legend, confusions, IoU by class, quality against distance in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from reporting.figures import save

# CamVid's usual colours; other classes take the rest of tab20 in order.
CAMVID = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (60, 40, 222), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip
VOID = (0, 0, 0)
WRONG = (220, 30, 30)


def palette_of(names: Sequence[str]) -> np.ndarray:
    """The colour of each class, uint8 (classes, 3)."""
    tab = (np.array(plt.get_cmap("tab20").colors) * 255).round().astype(np.uint8)
    found = [CAMVID.get(name, tab[number % len(tab)]) for number, name in enumerate(names)]
    if names and names[0] == "background":
        found[0] = (40, 40, 40)
    return np.array(found, np.uint8)


def coloured(mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A mask (H, W) in its classes' colours, uint8 (H, W, 3); what is none of them is black."""
    return np.vstack([palette, [VOID]]).astype(np.uint8)[np.minimum(mask, len(palette))]


def legend_patches(names: Sequence[str], palette: np.ndarray, void: bool = False) -> list[Patch]:
    found = [Patch(color=colour / 255, label=name) for name, colour in zip(names, palette, strict=True)]
    return [*found, Patch(color=np.array(VOID) / 255, label="not labelled")] if void else found


def save_legend(path: Path, names: Sequence[str], palette: np.ndarray) -> None:
    figure = plt.figure(figsize=(2.4, 0.28 * len(names) + 0.3))
    figure.legend(handles=legend_patches(names, palette), loc="center", frameon=False)
    save(figure, path)


def save_examples(
    path: Path, images: np.ndarray, masks: np.ndarray, predicted: np.ndarray, spec: Any, captions: Sequence[str]
) -> None:
    """For each image the image, its mask, the prediction, and where it is wrong; below them the legend."""
    palette, rows = palette_of(spec.names), len(images)
    ratio = spec.height / spec.width
    figure, axes = plt.subplots(rows, 4, figsize=(13, rows * 3.25 * ratio + 1.2), squeeze=False, layout="constrained")
    for row, (image, mask, own) in enumerate(zip(images, masks, predicted, strict=True)):
        shown = np.broadcast_to(image.transpose(1, 2, 0) / (spec.levels - 1), (*mask.shape, 3))
        valid = mask != spec.ignore
        grey = np.repeat(shown.mean(2, keepdims=True), 3, 2) * 0.6 + 0.2
        errors = np.where((valid & (own != mask))[..., None], np.array(WRONG) / 255, grey)
        errors = np.where(valid[..., None], errors, 0)
        seen = np.where(valid, mask, 255)
        for axis, pixels in zip(
            axes[row], (shown, coloured(seen, palette), coloured(own, palette), errors), strict=True
        ):
            axis.imshow(pixels, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row, 0].set_ylabel(captions[row], fontsize=8)
    for axis, title in zip(axes[0], ("image", "truth", "prediction", "errors (red)"), strict=True):
        axis.set_title(title)
    handles = legend_patches(spec.names, palette, void=spec.ignore >= 0)
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    save(figure, path)


def save_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> None:
    """Each class's row as shares of its labelled pixels."""
    shares = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    figure, axis = plt.subplots(figsize=(0.55 * len(names) + 2.5, 0.5 * len(names) + 1.8))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*shares.shape):
        if shares[row, column] >= 0.005:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("truth")
    save(figure, path)


def save_ious(path: Path, ious: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> None:
    """IoU of each class, the most frequent first, with its share of the labelled pixels."""
    order = np.argsort(-shares, kind="stable")
    figure, axis = plt.subplots(figsize=(0.75 * len(names) + 1.5, 3.6))
    palette = palette_of(names) / 255
    axis.bar(range(len(order)), np.nan_to_num(ious[order]), color=palette[order], edgecolor="black", linewidth=0.5)
    for place, number in enumerate(order):
        value = "none" if np.isnan(ious[number]) else f"{ious[number]:.2f}"
        axis.text(place, np.nan_to_num(ious[number]) + 0.01, value, ha="center", fontsize=8)
    labels = [f"{names[number]}\n{shares[number]:.1%}" for number in order]
    axis.set_xticks(range(len(order)), labels, fontsize=8, rotation=30 if len(names) > 6 else 0)
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("IoU")
    axis.grid(alpha=0.3, axis="y")
    save(figure, path)


def save_distances(path: Path, groups: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Each image's own mIoU against its distance in time from the nearest training frame, by video."""
    figure, axis = plt.subplots(figsize=(7, 3.8))
    for name, (distances, values) in groups.items():
        axis.plot(distances, values, ".", label=name, alpha=0.7)
    axis.set_xlabel("seconds to the nearest training frame")
    axis.set_ylabel("mIoU of the one image")
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)
