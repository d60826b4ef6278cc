"""Drawings that draw themselves: an SVG without a script, and a GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw

from datamodules.files import whole_file
from datamodules.strokes.forms import Polylines

CELL = 120  # pixels of a drawing's side
MARGIN = 10
INK, PAPER = (34, 34, 60), (255, 255, 255)
HELD = 0.2  # of the time the finished drawing stands
FINER = 3  # a GIF's lines are drawn so many times larger, then reduced


def fitted(drawings: Sequence[Polylines], cell: float = CELL) -> list[Polylines]:
    """The drawings in cells of pixels, each in the middle of its own; all by one factor, so that sizes compare."""
    corners = [(np.concatenate(lines).min(0), np.concatenate(lines).max(0)) for lines in drawings if lines]
    sides = [(high - low).max() for low, high in corners]
    factor = (cell - 2 * MARGIN) / max([*sides, 1e-9])
    found, place = [], iter(corners)
    for lines in drawings:
        if not lines:
            found.append([])
            continue
        low, high = next(place)
        found.append([(line - (low + high) / 2) * factor + cell / 2 for line in lines])
    return found


def spans(lines: Polylines) -> list[tuple[float, float]]:
    """When each stroke begins and ends, in parts of the time a drawing takes, by the way that the pen goes."""
    if not lines:
        return []
    ways = [max(np.hypot(*np.diff(line, axis=0).T).sum() if len(line) > 1 else 0.0, 1e-3) for line in lines]
    ends = np.cumsum(ways) / sum(ways)
    return list(zip([0.0, *ends[:-1]], ends, strict=True))


def svg(drawings: Sequence[Polylines], seconds: float = 4.0, columns: int = 5, title: str = "") -> str:
    """One <svg> in whose cells each drawing draws itself, over and over, in `seconds` each time; a path per stroke.

    A browser that knows no animation shows the finished drawings.
    """
    rows = -(-len(drawings) // columns)
    width, height = CELL * min(columns, len(drawings)), CELL * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>'
        '<g fill="none" stroke="#22223c" stroke-width="2.5" stroke-linecap="round" stroke-linejoin="round">'
    ]
    for number, lines in enumerate(fitted(drawings)):
        row, column = divmod(number, columns)
        for line, (begin, end) in zip(lines, spans(lines), strict=True):
            shifted = line + CELL * np.array([column, row])
            points = shifted if len(line) > 1 else np.concatenate([shifted, shifted + 0.1])
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(animated_path(path, begin * (1 - HELD), end * (1 - HELD), seconds))
    return "".join([*parts, "</g></svg>"])


def animated_path(path: str, begin: float, end: float, seconds: float) -> str:
    """A path that is one dash as long as itself, moved into sight between `begin` and `end`, parts of the time."""
    times = f"0;{begin:.4f};{end:.4f};1"
    # A round end of a dash that is out of sight by nothing would show as a dot.
    return (
        f'<path d="{path}" pathLength="1" stroke-dasharray="1 2"><animate attributeName="stroke-dashoffset" '
        f'values="1.03;1.03;0;0" keyTimes="{times}" dur="{seconds:g}s" repeatCount="indefinite"/></path>'
    )


def partly(lines: Polylines, share: float) -> Polylines:
    """What is drawn of a drawing after a share of its time."""
    found = []
    for line, (begin, end) in zip(lines, spans(lines), strict=True):
        if share <= begin:
            break
        found.append(line if share >= end else cut(line, (share - begin) / (end - begin)))
    return found


def cut(line: np.ndarray, share: float) -> np.ndarray:
    """The first part of a line, by its length."""
    if len(line) < 2:
        return line
    ways = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    aim = share * ways[-1]
    last = int(np.searchsorted(ways, aim))
    if last == 0:
        return line[:1]
    part = (aim - ways[last - 1]) / max(ways[last] - ways[last - 1], 1e-12)
    return np.concatenate([line[:last], [line[last - 1] + part * (line[last] - line[last - 1])]])


def picture(drawings: Sequence[Polylines], columns: int, share: float = 1.0) -> Image.Image:
    """The drawings, each as far as it is after a share of its time."""
    rows, columns = -(-len(drawings) // columns), min(columns, len(drawings))
    page = Image.new("RGB", (CELL * columns * FINER, CELL * rows * FINER), PAPER)
    pen = ImageDraw.Draw(page)
    for number, lines in enumerate(drawings):
        row, column = divmod(number, columns)
        for line in partly(lines, share):
            points = [tuple(point) for point in (line + CELL * np.array([column, row])) * FINER]
            pen.line(points if len(points) > 1 else points * 2, INK, width=2 * FINER + 1, joint="curve")
    return page.resize((CELL * columns, CELL * rows), Image.Resampling.LANCZOS)


def save_gif(
    path: Path, drawings: Sequence[Polylines], seconds: float = 4.0, frames: int = 40, columns: int = 5
) -> None:
    """An animation of so many frames in which all drawings draw themselves; the last frame stands for a while."""
    placed = fitted(drawings)
    pages = [picture(placed, columns, (number + 1) / frames) for number in range(frames)]
    grey = [page.convert("L").quantize(8) for page in pages]
    each = round(1000 * seconds * (1 - HELD) / frames / 10) * 10  # GIF counts hundredths of a second
    durations = [max(20, each)] * (frames - 1) + [max(20, round(1000 * seconds * HELD / 10) * 10)]
    with whole_file(path) as unfinished:
        grey[0].save(unfinished, "GIF", save_all=True, append_images=grey[1:], duration=durations, loop=0)
