"""Pictures of captions: where was looked for each word, in the direction in which the language is read."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

from datamodules.captions.normalise import RIGHT_TO_LEFT
from reporting.figures import save

COLUMNS = 8


def marked(sentence: str, language: str) -> str:
    """A sentence as HTML that is read in its own direction, whatever stands around it."""
    direction = "rtl" if language in RIGHT_TO_LEFT else "ltr"
    return f'<span dir="{direction}" lang="{language}">{html.escape(sentence)}</span>'


def as_large_as(weights: np.ndarray, rows: int, columns: int, height: int, width: int) -> np.ndarray:
    """α (T, rows · columns) as maps (T, height, width), bilinear."""
    maps = torch.from_numpy(weights.astype(np.float32)).view(-1, 1, rows, columns)
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[:, 0].numpy()


def save_attention(
    path: Path, image: np.ndarray, words: Sequence[str], weights: np.ndarray, rows: int, columns: int, language: str
) -> None:
    """The image, then for each word the image under its attention; right to left where the language runs so.

    matplotlib shapes Persian letters and orders them by itself: a word is given as it is stored, alone in its text.

    Args:
        image: uint8 (3, H, W).
        weights: α (T, L) at the step that says each word.
    """
    picture = image.transpose(1, 2, 0) / 255
    maps = as_large_as(weights, rows, columns, *image.shape[1:])
    lines = -(-(len(words) + 1) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(1.5 * COLUMNS, 1.75 * lines), squeeze=False)
    if language in RIGHT_TO_LEFT:
        axes = axes[:, ::-1]
    for axis in axes.flat:
        axis.axis("off")
    axes.flat[0].imshow(picture)
    for axis, word, looked in zip(axes.flat[1:], words, maps, strict=False):
        bright = (looked / max(looked.max(), 1e-9))[..., None]
        axis.imshow((1 - bright) * 0.5 * picture + bright * (0.3 + 0.7 * picture))  # dark scenes stay visible
        axis.text(0.5, 1.04, word, transform=axis.transAxes, ha="center", va="bottom", fontsize=10)
    save(figure, path)


def save_lengths(path: Path, lengths: Mapping[str, Sequence[int]]) -> None:
    """How many words sentences have, of the network's and of true ones: shares."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    most = max(max(own) for own in lengths.values()) + 1
    for number, (name, own) in enumerate(lengths.items()):
        shares = np.bincount(own, minlength=most) / len(own)
        axis.bar(np.arange(most) + 0.4 * number - 0.2, shares, 0.4, label=name)
    axis.set_xlabel("words")
    axis.set_ylabel("share of the sentences")
    axis.legend()
    save(figure, path)


def save_confusions(path: Path, counts: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
    """Tables (said across, true down) of counts, each with its names."""
    figure, axes = plt.subplots(1, len(counts), figsize=(5.2 * len(counts), 4.6), squeeze=False)
    for axis, (title, (table, names)) in zip(axes.flat, counts.items(), strict=True):
        axis.imshow(table / np.maximum(1, table.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            if count:
                dark = count > 0.5 * table[row].sum()
                axis.text(column, row, count, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("said")
        axis.set_ylabel("true")
        axis.set_title(title)
    save(figure, path)
