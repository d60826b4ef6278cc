"""The task's pictures: curves and histograms of scores, images with their errors, latents, what the decoder draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import precision_recall_curve, roc_curve

from reporting.figures import save

NORMAL, ANOMALY = "tab:blue", "tab:red"
NEIGHBOURHOOD = 400  # images of a t-SNE, which takes seconds for more


def plain(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) from 0 to 1 → (H, W, 3)."""
    return np.broadcast_to(np.clip(image.transpose(1, 2, 0), 0, 1), (*image.shape[1:], 3))


def save_score_curves(
    path: Path, anomalous: np.ndarray, own: Mapping[str, np.ndarray], baselines: Mapping[str, np.ndarray],
    areas: Mapping[str, float], chosen: str,
) -> None:  # fmt: skip
    """ROC, and precision and recall, of every score: the network's solid, the baselines' dashed."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 5), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for group, style in ((own, "-"), (baselines, "--")):
        for number, (name, scores) in enumerate(group.items()):
            false, true, _ = roc_curve(anomalous, scores)
            precision, recall, _ = precision_recall_curve(anomalous, scores)
            width = 2.5 if name == chosen else 1.1
            line = {"linestyle": style, "linewidth": width, "color": colours[number % len(colours)]}
            left.plot(false, true, **line, label=f"{areas[name]:.3f}  {name.replace('_', ' ')}")
            right.plot(recall, precision, **line)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    right.axhline(anomalous.mean(), color="grey", linewidth=0.8)
    right.text(0.01, anomalous.mean(), "share of anomalies", va="bottom", fontsize=8, color="grey")
    left.set_xlabel("normal images taken for anomalies")
    left.set_ylabel("anomalies found")
    right.set_xlabel("anomalies found (recall)")
    right.set_ylabel("of what is found, anomalies (precision)")
    right.set_ylim(max(0.0, 1 - 2 * (1 - anomalous.mean())), 1.01)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8, title="area under the ROC")
    save(figure, path)


def save_histogram(path: Path, anomalous: np.ndarray, scores: np.ndarray, threshold: float, name: str) -> None:
    """The score's distribution over normal images and anomalies, each of area 1, with the threshold."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    low, high = np.quantile(scores, [0, 0.995])
    edges = np.linspace(low, max(high, threshold, low + 1e-9), 60)
    for side, colour, label in ((~anomalous, NORMAL, "normal"), (anomalous, ANOMALY, "anomalies")):
        inside = np.clip(scores[side], edges[0], edges[-1])
        axis.hist(inside, edges, density=True, alpha=0.55, color=colour, label=f"{label}, {side.sum():,}")
    axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}")
    axis.set_xlabel(f"score: {name.replace('_', ' ')}")
    axis.set_ylabel("density")
    axis.legend()
    save(figure, path)


def save_extremes(path: Path, groups: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> None:
    """For each title some images, their reconstructions (N, C, H, W), both from 0 to 1, and a caption for each image;
    under each image its reconstruction, and the error: red where the image is brighter, blue where darker."""
    columns = max(len(images) for images, _, _ in groups.values())
    figure = plt.figure(figsize=(1.15 * 2 * columns + 0.6, 4.6 * -(-len(groups) // 2)), layout="constrained")
    panels = figure.subfigures(-(-len(groups) // 2), 2, squeeze=False, wspace=0.04, hspace=0.04)
    for panel, (title, (images, expected, captions)) in zip(panels.flat, groups.items(), strict=False):
        panel.suptitle(title, fontsize=11)
        axes = panel.subplots(3, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for column, (image, other, caption) in enumerate(zip(images, expected, captions, strict=True)):
            axes[0, column].imshow(plain(image), interpolation="nearest")
            axes[0, column].set_title(caption, fontsize=8)
            axes[1, column].imshow(plain(other), interpolation="nearest")
            axes[2, column].imshow((image - other).mean(0), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        for row, name in enumerate(("image", "reconstruction", "error")):
            axes[row, 0].text(-0.08, 0.5, name, transform=axes[row, 0].transAxes, rotation=90, ha="right", va="center",
                              fontsize=8)  # fmt: skip
    save(figure, path)


def save_latents(path: Path, means: np.ndarray, anomalous: np.ndarray, seed: int = 0) -> None:
    """Posterior means (N, latent) in their two principal directions, and by t-SNE."""
    rows = np.random.default_rng(seed).permutation(len(means))[:NEIGHBOURHOOD]
    panels = {}
    if means.shape[1] > 1:
        panels["two principal directions"] = (PCA(2).fit_transform(means), anomalous)
        if len(rows) > 10:
            near = TSNE(2, perplexity=min(30, len(rows) // 4), random_state=seed).fit_transform(means[rows])
            panels[f"t-SNE of {len(rows)}"] = (near, anomalous[rows])
    else:
        places = np.stack([means[:, 0], np.random.default_rng(seed).random(len(means))], 1)
        panels["the latent, against chance"] = (places, anomalous)
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.8), squeeze=False)
    for axis, (title, (places, odd)) in zip(axes[0], panels.items(), strict=True):
        for side, colour, label, size in ((odd, ANOMALY, "anomalies", 4), (~odd, NORMAL, "normal", 9)):
            axis.scatter(*places[side].T, s=size, color=colour, alpha=0.6, label=label, linewidths=0)
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, 0].legend()
    save(figure, path)


def save_kl(path: Path, kl: np.ndarray) -> None:
    """The mean KL of each latent (latent,), the largest first."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    order = np.argsort(-kl)
    axis.bar(np.arange(len(kl)), kl[order], color=NORMAL)
    axis.set_xticks(np.arange(len(kl)), order, fontsize=7 if len(kl) > 12 else 9)
    axis.set_xlabel("latent, by its KL")
    axis.set_ylabel("KL to the prior, nats")
    axis.grid(alpha=0.3, axis="y")
    save(figure, path)


def save_rows(path: Path, groups: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]] | None = None) -> None:
    """For each title rows of pictures (rows, columns, C, H, W) from 0 to 1, with a name before each row."""
    figure, axes = plt.subplots(1, len(groups), figsize=(5.2 * len(groups), 4.8), squeeze=False, layout="constrained")
    for axis, (title, pictures) in zip(axes[0], groups.items(), strict=True):
        rows, columns, _, height, width = pictures.shape
        canvas = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
        for row, column in np.ndindex(rows, columns):
            top, left = row * (height + 1), column * (width + 1)
            canvas[top : top + height, left : left + width] = plain(pictures[row, column])
        axis.imshow(canvas, interpolation="nearest")
        axis.set_title(title)
        axis.set_xticks([])
        middles = np.arange(rows) * (height + 1) + height / 2
        axis.set_yticks(middles if names else [], (names or {}).get(title, []), fontsize=8)
        for side in axis.spines.values():
            side.set_visible(False)
        axis.tick_params(length=0)
    save(figure, path)
