"""The task's pictures: the first layer's weights as images, and what an update is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from reporting.figures import save


def save_first_weights(path: Path, weights: np.ndarray, columns: int = 16) -> None:
    """Each hidden unit's weights (units, H, W) as an image on one scale: red raises the unit, blue lowers it."""
    rows = -(-len(weights) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(0.62 * columns, 0.62 * rows + 0.7), squeeze=False, layout="constrained"
    )
    strongest = max(np.abs(weights).max(), 1e-12)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture in zip(axes.flat, weights, strict=False):
        shown = axis.imshow(picture, cmap="RdBu_r", vmin=-strongest, vmax=strongest, interpolation="nearest")
    figure.colorbar(shown, ax=axes, location="bottom", shrink=0.5, aspect=40, label="weight")
    save(figure, path)


def save_updates(path: Path, traces: Sequence[dict[str, Any]]) -> None:
    """Validation loss after each update, and against the images gone through to get there."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
    for trace in traces:
        losses = np.asarray(trace["loss"])
        style = {"label": trace["name"], "linestyle": "--" if trace["variant"] else "-"}
        left.plot(losses, **style)
        right.plot(np.arange(1, len(losses)) * trace["images"], losses[1:], **style)
    highest = 1.25 * traces[0]["loss"][0]  # what diverges leaves the picture
    left.set_ylim(0, highest)
    left.set_xlabel("updates")
    left.set_ylabel("validation cross-entropy, nats")
    right.set_xscale("log")
    right.set_xlabel("images gone through")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save(figure, path)
