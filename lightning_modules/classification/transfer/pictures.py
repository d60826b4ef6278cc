"""Pictures of two classes, of a grid, of features, and of accuracy against images of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.metrics import precision_recall_curve, roc_curve

from lightning_modules.classification.binary import called
from reporting.figures import save
from reporting.intervals import auc

RESAMPLES = 200  # of a curve's band


def save_curves_of_two(path: Path, judged: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> None:
    """ROC, and precision and recall, of each classifier's labels, scores and threshold; the first with a band of
    resampled items. A dot is its own threshold (a probability of ½), a diamond the one from validation images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    lowest = 1.0
    for number, (name, (labels, scores, threshold)) in enumerate(judged.items()):
        false, true, _ = roc_curve(labels, scores)
        precision, recall, _ = precision_recall_curve(labels, scores)
        colour = f"C{number}"
        left.plot(false, true, color=colour, label=f"{auc(labels, scores):.3f}  {name}")
        right.plot(recall, precision, color=colour, label=name)
        if number == 0:
            at, low, high = roc_band(labels, scores)
            left.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        lowest = min(lowest, precision.min())
        for cut, mark in ((0.0, "o"), (threshold, "D")):
            point = called(labels, scores, cut)
            left.plot(
                1 - point.specificity, point.sensitivity, mark, color=colour, markeredgecolor="white", markersize=8
            )
    base = next(iter(judged.values()))[0].mean()
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    right.axhline(base, color="grey", linewidth=0.8)
    right.text(0.01, base, "share of positives", va="bottom", fontsize=8, color="grey")
    left.set_xlabel("negatives called positive (1 − specificity)")
    left.set_ylabel("positives found (sensitivity)")
    right.set_xlabel("positives found (recall)")
    right.set_ylabel("of what is called positive, right (precision)")
    right.set_ylim(max(0.0, min(base, lowest) - 0.05), 1.01)
    for mark, meaning in (("o", "called positive from probability ½"), ("D", "from the validation images' threshold")):
        left.plot([], [], mark, color="grey", label=meaning)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(loc="lower right", fontsize=9, title="area")
    save(figure, path)


def roc_band(labels: np.ndarray, scores: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At 101 false-positive rates the 2.5 and 97.5 % quantiles of the true-positive rate over resampled items."""
    rng, at, curves = np.random.default_rng(seed), np.linspace(0, 1, 101), []
    while len(curves) < RESAMPLES:
        rows = rng.integers(0, len(labels), len(labels))
        if 0 < labels[rows].sum() < len(rows):
            false, true, _ = roc_curve(labels[rows], scores[rows])
            curves.append(np.interp(at, false, true))
    return at, *np.percentile(curves, [2.5, 97.5], axis=0)


def save_scores(path: Path, labels: np.ndarray, scores: np.ndarray, threshold: float, names: Sequence[str]) -> None:
    """The score's distribution over either class, with both thresholds."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    edges = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-6), 50)
    for side, name, colour in ((~labels, names[0], "tab:blue"), (labels, names[1], "tab:red")):
        axis.hist(scores[side], edges, color=colour, alpha=0.55, label=f"{name}, {side.sum()} images")
    axis.axvline(0, color="grey", linestyle=":", label="probability ½")
    axis.axvline(threshold, color="black", linestyle="--", label="threshold from validation images")
    axis.set_xlabel(f"score: larger for {names[1]}")
    axis.set_ylabel("test images")
    axis.legend(fontsize=8)
    save(figure, path)


def save_grid(path: Path, grid: Mapping[tuple[float, float], float]) -> None:
    """Mean balanced accuracy in the search's folds over C × gamma."""
    across, down = sorted({C for C, _ in grid}), sorted({gamma for _, gamma in grid})
    values = np.array([[grid[C, gamma] for C in across] for gamma in down])
    figure, axis = plt.subplots(figsize=(1.6 + 0.9 * len(across), 1.4 + 0.7 * len(down)))
    image = axis.imshow(values, cmap="viridis", aspect="auto")
    middle = (values.min() + values.max()) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > middle else "white"
        axis.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=9, color=colour)
    axis.set_xticks(range(len(across)), [f"{C:g}" for C in across])
    axis.set_yticks(range(len(down)), [f"{gamma:g}" for gamma in down])
    axis.set_xlabel("C")
    axis.set_ylabel("gamma · Σ Var")
    figure.colorbar(image, ax=axis, label="balanced accuracy, inner folds")
    save(figure, path)


def save_directions(
    path: Path, places: np.ndarray, labels: np.ndarray, right: np.ndarray, names: Sequence[str]
) -> None:
    """Test images (N, 2) in the plane of the features' two principal directions, by class; the wrong ones ringed."""
    figure, axis = plt.subplots(figsize=(8, 6))
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for number, name in enumerate(names):
        own = places[labels == number]
        axis.scatter(*own.T, s=9, color=colours(number % 20), alpha=0.6, linewidths=0, label=name)
    axis.scatter(*places[~right].T, s=26, facecolors="none", edgecolors="black", linewidths=0.6, label="taken wrongly")
    axis.set_xlabel("first principal direction of the training images' features")
    axis.set_ylabel("second")
    axis.legend(fontsize=8, markerscale=1.6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def save_shots(path: Path, curves: Mapping[str, Mapping[int, Sequence[float]]], title: str) -> None:
    """Of each classifier its test accuracies against images of a class: the mean of the draws, and from the least to
    the most of them a band."""
    figure, axis = plt.subplots(figsize=(7, 4.4))
    for number, (name, found) in enumerate(curves.items()):
        at = list(found)
        means = [100 * float(np.mean(values)) for values in found.values()]
        axis.plot(at, means, "o-", color=f"C{number}", label=name)
        ends = [[100 * end(values) for values in found.values()] for end in (min, max)]
        axis.fill_between(at, *ends, color=f"C{number}", alpha=0.18, linewidth=0)
    axis.set_xscale("log")
    every = sorted({n for found in curves.values() for n in found})
    axis.set_xticks(every, [f"{n:,}" for n in every])
    axis.minorticks_off()
    axis.set_xlabel("images of each class to learn from")
    axis.set_ylabel("test images right, %")
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    save(figure, path)
