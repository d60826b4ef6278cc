"""The task's figures: text coloured by a value of each token, and losses by class, place and window."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib import pyplot as plt
from matplotlib.ft2font import FT2Font

from reporting.figures import save

COLUMNS = 92  # characters of a line in a picture
FONT = "DejaVu Sans Mono"  # comes with matplotlib
FONT_SIZE, FONT_WIDTH = 8, 0.602  # points; a character's width in parts of the size


class Block(NamedTuple):
    """A title, and text as tokens with a value between 0 and 1 of each."""

    title: str
    tokens: Sequence[str]
    values: np.ndarray


def can_be_drawn(tokens: Sequence[str]) -> bool:
    """Has matplotlib's font all of these characters, and are all of them written from left to right?"""
    font = FT2Font(font_manager.findfont(FONT))
    characters = {character for token in tokens for character in token} - {"\n"}
    return all(
        font.get_char_index(ord(character))
        and unicodedata.east_asian_width(character) not in "WF"
        and unicodedata.bidirectional(character) not in ("R", "AL")
        for character in characters
    )


def laid_out(tokens: Sequence[str], columns: int = COLUMNS) -> tuple[list[tuple[int, int]], int]:
    """Row and column of each token's first character, and how many rows there are; a line's end stands as one sign."""
    places, row, column = [], 0, 0
    for token in tokens:
        if column and column + len(token) > columns:
            row, column = row + 1, 0
        places.append((row, column))
        row, column = (row + 1, 0) if token == "\n" else (row, column + len(token))
    return places, (places[-1][0] + 1 if places else 0)


def save_coloured_text(path: Path, blocks: Sequence[Block], colours: str) -> None:
    """Each block's text under its title, every token on a ground of its value's colour."""
    laid = [laid_out(block.tokens) for block in blocks]
    rows = sum(count + 2 for _, count in laid)
    ground = np.ones((rows, COLUMNS, 3))
    # A cell is as wide as the font's characters, so that a line can be written as one text.
    figure = plt.figure(figsize=(COLUMNS * FONT_SIZE * FONT_WIDTH / 72, rows * FONT_SIZE * 1.6 / 72))
    axis = figure.add_axes((0, 0, 1, 1))
    top = 0
    for block, (places, count) in zip(blocks, laid, strict=True):
        axis.text(0, top + 1, block.title, fontsize=FONT_SIZE + 1, weight="bold", va="center")
        lines = [[" "] * COLUMNS for _ in range(count)]
        shades = colormaps[colours](np.asarray(block.values, float))[:, :3]
        for token, shade, (row, column) in zip(block.tokens, shades, places, strict=True):
            shown = ("↵" if token == "\n" else token)[: COLUMNS - column]
            lines[row][column : column + len(shown)] = shown
            ground[top + 2 + row, column : column + len(shown)] = shade
        for row, line in enumerate(lines):
            axis.text(0, top + 2 + row, "".join(line), fontsize=FONT_SIZE, family=FONT, va="center", parse_math=False)
        top += count + 2
    axis.imshow(ground, extent=(0, COLUMNS, rows - 0.5, -0.5), aspect="auto", interpolation="nearest")
    axis.axis("off")
    with plt.rc_context({"text.hinting": "none"}):  # hinted characters are rounded to whole pixels
        save(figure, path)


def coloured_html(blocks: Sequence[Block], colours: str) -> str:
    """The same as HTML, for scripts that a picture cannot show; the browser lays out the lines."""
    colour_of, parts = colormaps[colours], []
    for block in blocks:
        spans = []
        for token, value in zip(block.tokens, block.values, strict=True):
            red, green, blue = (round(255 * part) for part in colour_of(float(value))[:3])
            shown = "↵<br>" if token == "\n" else html.escape(token).replace(" ", "&nbsp;<wbr>")
            spans.append(f'<span style="background:rgb({red},{green},{blue})">{shown}</span>')
        parts.append(f"<p><b>{html.escape(block.title)}</b></p><div dir='auto'>{''.join(spans)}</div>")
    return f"<div>{''.join(parts)}</div>"


def save_bars(path: Path, charts: Mapping[str, Mapping[str, tuple[float, int]]], unit: str) -> None:
    """Bars side by side: for each chart's groups the mean nats, how many there are written upon them."""
    figure, axes = plt.subplots(1, len(charts), figsize=(5.5 * len(charts), 4), squeeze=False)
    for axis, (title, groups) in zip(axes[0], charts.items(), strict=True):
        bars = axis.bar(range(len(groups)), [mean for mean, _ in groups.values()], color="#4c72b0")
        axis.bar_label(bars, [f"{count:,}" for _, count in groups.values()], fontsize=7, color="#555")
        axis.set_xticks(range(len(groups)), list(groups), rotation=30 if max(map(len, groups)) > 3 else 0,
                        ha="right" if max(map(len, groups)) > 5 else "center")  # fmt: skip
        axis.set_ylabel(f"nats per {unit}")
        axis.set_title(title)
        axis.margins(y=0.12)
    figure.tight_layout()
    save(figure, path)


def save_window_curves(path: Path, curves: Mapping[str, np.ndarray], unit: str) -> None:
    """Mean nats at each place of a window, for both ways to score, in groups of places that double in width."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, means in curves.items():
        edges = [0, *(2**power for power in range(int(np.log2(len(means))) + 1)), len(means)]
        edges = sorted(set(edges))
        values = [means[a:b].mean() for a, b in pairwise(edges)]
        axis.plot([(a + b - 1) / 2 + 1 for a, b in pairwise(edges)], values, "o-", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xlabel(f"place in the window, {unit}s")
    axis.set_ylabel(f"nats per {unit}")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def save_along(path: Path, curves: Mapping[str, np.ndarray], unit: str, pieces: int = 40) -> None:
    """Mean nats along a stretch, of so many pieces of it."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, nats in curves.items():
        parts = np.array_split(nats, min(pieces, len(nats)))
        ends = np.cumsum([len(part) for part in parts])
        axis.plot(ends, [part.mean() for part in parts], "o-", markersize=3, label=f"{name}, mean {nats.mean():.4f}")
    axis.set_xlabel(f"place in the stretch, {unit}s")
    axis.set_ylabel(f"nats per {unit}")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def save_quotation(path: Path, lengths: Sequence[int], fractions: Mapping[str, Sequence[float]], unit: str) -> None:
    """Which part of runs of so many tokens stands in the training text, for each group of texts."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for name, values in fractions.items():
        axis.plot(lengths, values, "k--" if name == "held-out text" else "o-", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.set_xlabel(f"length of a run, {unit}s")
    axis.set_ylabel("part that stands in the training text")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)
