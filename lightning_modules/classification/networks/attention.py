"""What a vision transformer's attention and positions look like: its part of a run's report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.figures import to_picture
from lightning_modules.classification.network import Shown
from reporting.figures import save
from reporting.report import Section

HEADS_SHOWN = 4


def rollout(weights: np.ndarray) -> np.ndarray:
    """How much each token at the end comes from each at the start: (B, tokens, tokens), rows sum to 1.

    In every block the mean over heads, half of it and half the token itself, which the residual connection adds;
    multiplied from the first block to the last. Source: Abnar & Zuidema 2020, arXiv 2005.00928; Dosovitskiy et al.
    2021, appendix D.8.

    Args:
        weights: (L, B, k, tokens, tokens).
    """
    itself = np.eye(weights.shape[-1])
    mixed = np.broadcast_to(itself, weights[0, :, 0].shape)
    for block in weights.mean(2):
        mixed = (block + itself) / 2 @ mixed
    return mixed


def similarities(positions: np.ndarray) -> np.ndarray:
    """The cosine of each position (N, D) with each: (N, N)."""
    unit = positions / np.maximum(np.linalg.norm(positions, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def attention_section(weights: np.ndarray, grid: tuple[int, int], shown: Shown, levels: int) -> Section:
    """Where the class token looks in chosen test images: rolled out over all blocks, and head by head in the last.

    Args:
        weights: (L, N, k, tokens, tokens) of the shown images.
        grid: patches down and across.
    """
    last = weights[-1, :, :HEADS_SHOWN, 0, 1:]
    columns = {"all blocks": rollout(weights)[:, 0, 1:]}
    columns |= {f"block {len(weights) - 1}, head {head}": last[:, head] for head in range(last.shape[1])}
    maps = {name: found.reshape(-1, *grid) for name, found in columns.items()}
    save_attention(shown.folder / "figures" / "attention.png", shown, maps, levels)
    text = (
        "What the class token, which alone is classified, takes from each patch: through all blocks (attention "
        f"rollout), and in the last block by {last.shape[1]} of its {weights.shape[2]} heads. Brighter is more, each "
        "map scaled to its own maximum. task.module.shown_images chooses the images."
    )
    return Section("Attention", text, "figures/attention.png")


def save_attention(path: Path, shown: Shown, maps: dict[str, np.ndarray], levels: int) -> None:
    """A row for each image: itself, then each map (N, rows, columns) of its patches."""
    shape = (len(shown.images), 1 + len(maps))
    figure, axes = plt.subplots(*shape, figsize=(1.9 * shape[1], 2.1 * shape[0]), squeeze=False)
    for row, (image, caption) in enumerate(zip(shown.images, shown.captions, strict=True)):
        axes[row, 0].imshow(to_picture(image, levels), interpolation="nearest")
        axes[row, 0].text(0.5, -0.04, caption, transform=axes[row, 0].transAxes, ha="center", va="top", fontsize=8)
        for axis, (name, found) in zip(axes[row, 1:], maps.items(), strict=True):
            axis.imshow(found[row], cmap="inferno", vmin=0, interpolation="nearest")
            if row == 0:
                axis.set_title(name, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    save(figure, path)


def positions_section(positions: np.ndarray, grid: tuple[int, int], folder: Path) -> Section:
    """Which of the patches' learned positions (N, D) are alike."""
    maps = similarities(positions).reshape(*grid, *grid)
    spaced = np.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)  # white between the maps
    rows, columns = grid
    picture = spaced.transpose(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))
    figure, axis = plt.subplots(figsize=(6, 5))
    drawn = axis.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axis.axis("off")
    figure.colorbar(drawn, ax=axis, label="cosine")
    save(figure, folder / "figures" / "positions.png")
    text = (
        "Each small map belongs to the patch at its place: the cosine of that patch's learned position with those of "
        "all patches (Dosovitskiy et al. 2021, figure 7). The network is told nothing of neighbours, rows and columns: "
        "what is alike here was learned."
    )
    return Section("Positions", text, "figures/positions.png")
