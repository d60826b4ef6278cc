"""The task's pictures: boxes over images, precision against recall, AP against the IoU asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

from lightning_modules.detection.average_precision import (
    THRESHOLDS,
    TRUE,
    Curve,
    Judged,
    angle_errors,
    class_figures,
    curve,
    judge,
    verdicts,
)
from lightning_modules.detection.geometry.boxes import corners
from reporting.figures import save

TRUTH, FOUND, WRONG, PROPOSED = "#ffffff", "#35e06b", "#ff4d4d", "#ffd23f"


def draw_boxes(axis: plt.Axes, boxes: np.ndarray, colour: str, width: float, labels: Sequence[str] = ()) -> None:
    """Rotated boxes (N, 5) in pixels over an image, each with its label at its first corner."""
    for place, points in enumerate(corners(torch.as_tensor(boxes)).numpy() - 0.5):  # imshow's pixel 0 is centred at 0
        axis.plot(*np.concatenate([points, points[:1]]).T, color=colour, linewidth=width)
        if len(labels):
            x, y = points[points[:, 1].argmin()]
            axis.text(x, y - 1, labels[place], color=colour, fontsize=6, ha="center", va="bottom", clip_on=True)


def save_overlays(
    path: Path,
    images: np.ndarray,
    levels: int,
    names: Sequence[str],
    rows: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Images (N, C, H, W), a column each: with their truth, their best proposals, and with what was found,
    of which the best are shown, as many as there are objects.

    Args:
        rows: `truths` (T, 7), `proposals` (P, 5) and `detections` (D, 7) of each image, see `Detection`.
    """
    figure, axes = plt.subplots(3, len(images), figsize=(2.3 * len(images), 7.2), squeeze=False)
    for column, image in enumerate(images):
        truths, found = rows["truths"][column], rows["detections"][column]
        found = found[: len(truths)]
        right = verdicts(judge([found], [truths]), 0.5) == TRUE
        for axis in axes[:, column]:
            picture = np.broadcast_to(image.transpose(1, 2, 0) / (levels - 1), (*image.shape[1:], 3))
            axis.imshow(picture)
            axis.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5), xticks=[], yticks=[])
        draw_boxes(axes[0, column], truths[:, :5], TRUTH, 1, [names[int(row[5])] for row in truths])
        draw_boxes(axes[1, column], rows["proposals"][column][:20, :5], PROPOSED, 0.5)
        for mine, colour in ((right, FOUND), (~right, WRONG)):
            labels = [f"{names[int(row[6])]} {row[5]:.2f}" for row in found[mine]]
            draw_boxes(axes[2, column], found[mine, :5], colour, 1, labels)
    for axis, title in zip(axes[:, 0], ("truth", "20 best proposals", "found"), strict=True):
        axis.set_ylabel(title)
    save(figure, path)


def pooled(judged: Judged, threshold: float) -> Curve:
    """Precision and recall of all classes' detections together."""
    return curve(verdicts(judged, threshold), int((~judged.difficult).sum()))


def save_precision(path: Path, judged: Judged, names: Sequence[str]) -> None:
    """Precision against recall at IoU 0.5 of each class and of all together, and beside it AP against the IoU."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    found, easy = verdicts(judged, 0.5), judged.true_classes[~judged.difficult]
    for name in np.unique(easy):
        points = curve(found[judged.classes == name], int((easy == name).sum()))
        left.plot(points.recall, points.precision, linewidth=0.8, alpha=0.7, label=names[name])
    points = pooled(judged, 0.5)
    left.plot(points.recall, points.precision, color="black", linewidth=2, label="all")
    left.set(xlabel="recall at IoU 0.5", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    left.legend(fontsize=7, ncols=2, loc="best")
    means = [np.mean([both[0] for both in class_figures(judged, t).values()] or [0]) for t in THRESHOLDS]
    right.plot(THRESHOLDS, means, marker="o")
    right.set(xlabel="IoU that is asked for", ylabel="mean average precision", ylim=(0, 1.02))
    save(figure, path)


def save_angles(path: Path, judged: Judged) -> None:
    """A histogram of the angle's errors of true detections at IoU 0.5."""
    errors, directed = angle_errors(judged, verdicts(judged, 0.5) == TRUE)
    figure, axis = plt.subplots(figsize=(7, 3.2))
    axis.hist(np.minimum(errors[directed], 20), bins=40, range=(0, 20))
    axis.set(xlabel="degrees off, modulo 180 (20: or more)", ylabel="true detections")
    save(figure, path)


def save_aspects(path: Path, found: Mapping[str, Mapping[tuple[float, float], tuple[int, float, float]]]) -> None:
    """AP50 and AP75 against the shape of objects, a line for each of `by_aspect`'s answers."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    shapes = sorted({shape for own in found.values() for shape in own})
    for place, (axis, title) in enumerate(zip(axes, ("AP50", "AP75"), strict=True), 1):
        for name, own in found.items():
            style = "--" if "boxes" in name else "-"
            axis.plot(range(len(shapes)), [own.get(shape, [np.nan] * 3)[place] for shape in shapes], style, marker="o",
                      label=name)  # fmt: skip
        axis.set(title=title, xlabel="long side / short side", ylim=(0, 1.02))
        axis.set_xticks(range(len(shapes)), [f"{low:g} to {high:g}" for low, high in shapes])
    axes[1].legend(fontsize=8)
    save(figure, path)
