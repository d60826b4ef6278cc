"""The task's pictures: confusions before and after, features of both domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.figures import draw_matrix
from reporting.figures import save

DOMAIN_COLOURS = {"source": "tab:blue", "target": "tab:red"}


def embedded(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton 2008) of features (N, D) in the plane (N, 2); the same seed, the same picture."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(features)


def save_embeddings(
    path: Path, placed: Mapping[str, np.ndarray], is_target: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """A column for each of `placed`, points (N, 2) by title: above coloured by domain, below by class."""
    figure, axes = plt.subplots(2, len(placed), figsize=(5.2 * len(placed), 10.2), squeeze=False)
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for (top, bottom), (title, points) in zip(axes.T, placed.items(), strict=True):
        for domain, own in (("source", ~is_target), ("target", is_target)):
            marks = {"s": 9, "alpha": 0.7, "label": domain, "color": DOMAIN_COLOURS[domain]}
            top.scatter(*points[own].T, **marks)
        for number, name in enumerate(names):
            own = labels == number
            bottom.scatter(*points[own].T, s=9, alpha=0.7, label=name, color=colours(number % colours.N))
        top.set_title(title)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].legend(loc="best", fontsize=9)
    axes[1, 0].legend(loc="best", fontsize=7, ncols=2)
    save(figure, path)


def save_confusions(path: Path, counts: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Confusion matrices side by side, each under its title."""
    figure, axes = plt.subplots(1, len(counts), figsize=(6.5 * len(counts), 6.3), squeeze=False, layout="constrained")
    for axis, (title, own) in zip(axes[0], counts.items(), strict=True):
        draw_matrix(axis, own, names, title)
    save(figure, path)
