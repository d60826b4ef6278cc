"""The task's figures: sheets of drawings, the density on the page, what is attended to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib import pyplot as plt

from datamodules.strokes.forms import Polylines
from lightning_modules.sketch.animation import INK, fitted
from lightning_modules.sketch.mixture import as_mixture, log_densities
from reporting.figures import save

COLOUR = tuple(part / 255 for part in INK)
RED = "#d1495b"
CELL_SIDE = 100.0  # of a sheet's cell


def save_sheet(
    path: Path,
    rows: Sequence[Sequence[Polylines]],
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    begun: int = 0,
) -> None:
    """Drawings in rows and columns, all by one factor; the first `begun` points of each in another colour."""
    columns = max(map(len, rows))
    figure, axis = plt.subplots(figsize=(1.1 * columns + 0.6, 1.1 * len(rows) + 0.3))
    placed = iter(fitted([lines for row in rows for lines in row], CELL_SIDE))
    for number, row in enumerate(rows):
        for place in range(len(row)):
            corner = np.array([place, number]) * CELL_SIDE
            axis.add_patch(plt.Rectangle(corner + 1, CELL_SIDE - 2, CELL_SIDE - 2, fill=False, ec="#ddd"))
            draw_lines(axis, [line + corner for line in next(placed)], begun)
        if number < len(row_titles):
            axis.text(-4, (number + 0.5) * CELL_SIDE, row_titles[number], fontsize=9, ha="right", va="center")
    for place, title in enumerate(column_titles):
        axis.text((place + 0.5) * CELL_SIDE, -2, title, fontsize=9, ha="center", va="bottom")
    axis.set(xlim=(0, columns * CELL_SIDE), ylim=(len(rows) * CELL_SIDE, 0), aspect="equal")
    axis.axis("off")
    save(figure, path)


def draw_lines(axis: plt.Axes, lines: Polylines, begun: int = 0) -> None:
    """A drawing; its first points in red."""
    for line in lines:
        axis.plot(*line.T, color=COLOUR, lw=1.4, solid_capstyle="round", marker="." if len(line) == 1 else None, ms=2)
        if begun > 0:
            axis.plot(*line[:begun].T, color=RED, lw=1.8, solid_capstyle="round")
            begun -= len(line)


def save_densities(path: Path, strokes: np.ndarray, parameters: torch.Tensor, steps: Sequence[int]) -> None:
    """Where the next point is expected at four steps of a drawing, and where it went.

    Args:
        strokes: of one drawing (T, 5), in units of the scale.
        parameters: of its densities (T, 6M + 3).
        steps: their numbers.
    """
    points = np.cumsum(strokes[:, :2], axis=0)
    ends = strokes[:, 4] > 0
    own = points[: ends.argmax() if ends.any() else len(points)]
    middle, reach = (own.min(0) + own.max(0)) / 2, (own.max(0) - own.min(0)).max() * 0.65 + 1e-6
    low, high = middle - reach, middle + reach
    figure, axes = plt.subplots(1, len(steps), figsize=(3.1 * len(steps), 3.2), squeeze=False)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 160).T), -1)
    for axis, step in zip(axes[0], steps, strict=True):
        pen = points[step - 1] if step else np.zeros(2)
        mixture = as_mixture(parameters[step].double())
        with torch.no_grad():
            logs = log_densities(mixture, torch.from_numpy(grid - pen)).numpy()
        axis.imshow(np.exp((logs - logs.max()) / 2), extent=(low[0], high[0], high[1], low[1]), cmap="Blues")
        pieces = np.split(points[:step], np.flatnonzero(strokes[:step, 3] > 0) + 1)
        for piece in pieces:
            axis.plot(*piece.T, color=COLOUR, lw=1.3)
        axis.plot(*pen, "o", color=COLOUR, ms=4)
        axis.plot(*points[step], "x", color=RED, ms=8, mew=2)
        chances = mixture.pens.softmax(-1)
        axis.set_title(f"point {step + 1}: lifts {float(chances[1]):.0%}, ends {float(chances[2]):.0%}", fontsize=8)
        axis.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    save(figure, path)


def save_attention(
    path: Path, drawings: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]], titles: Sequence[str]
) -> None:
    """Of drawings (T, 5), lines from the pen to what it attended to at some steps, the stronger the darker.

    Args:
        drawings: each with the weights of the steps before (one array for each step, of step n its first n).
    """
    figure, axes = plt.subplots(1, len(drawings), figsize=(2.6 * len(drawings), 2.8), squeeze=False)
    for axis, (strokes, weights), title in zip(axes[0], drawings, titles, strict=True):
        points = np.cumsum(strokes[:, :2], axis=0)
        count = int((strokes[:, 4] == 0).sum())
        for piece in np.split(points[:count], np.flatnonzero(strokes[:count, 3] > 0) + 1):
            axis.plot(*piece.T, color="#bbb", lw=1.2)
        shown = [step for step in np.unique(np.linspace(2, count - 1, 8).astype(int)) if step < len(weights)]
        for order, step in enumerate(shown):
            if weights[step] is None:
                continue
            pen = points[step - 1]
            colour = colormaps["viridis"](order / max(1, len(shown) - 1))
            for before, weight in enumerate(weights[step]):
                # Position j is where the pen was at step j: the end of stroke j − 1.
                other = points[before - 1] if before else np.zeros(2)
                if weight > 0.05:
                    axis.plot(*zip(pen, other, strict=True), color=colour, lw=1.2, alpha=float(min(1, weight + 0.1)))
            axis.plot(*pen, "o", color=colour, ms=3)
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.invert_yaxis()
    save(figure, path)
