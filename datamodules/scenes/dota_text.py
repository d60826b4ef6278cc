"""DOTA's text files: `labelTxt` of objects, read and written, and `Task1_<class>.txt` of detections."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.scenes.quadrilaterals import fault, smallest_rectangle
from datamodules.scenes.rectangles import corners

log = logging.getLogger(__name__)
HEADERS = ("imagesource", "gsd")
CLASSES = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip


class Labels(NamedTuple):
    """One image's objects: corners (T, 4, 2), the smallest canonical rectangles around (T, 5), class names, difficult
    (T,); and how many lines were left out."""

    points: np.ndarray
    boxes: np.ndarray
    names: list[str]
    difficult: np.ndarray
    left_out: int = 0


def read_labels(path: Path, size: tuple[int, int] | None = None) -> Labels:
    """A `labelTxt` file: x1 y1 … x4 y4 class difficult a line; without the last, 0; header lines are passed over.

    An object whose sides cross, without an area, or whose centre is outside the image is left out, with one warning for
    the file.

    Args:
        size: the image's width and height; None: any place will do.

    Raises:
        UsageError: a line is of another form.
    """
    points, boxes, names, difficult, faults = [], [], [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].split(":")[0] in HEADERS:
            continue
        four, name, hard = parsed(fields, f"Line {number} of '{path}'")
        wrong = fault(four) or (size and outside(four, size))
        if wrong:
            faults.append(f"line {number}: {wrong}")
            continue
        points.append(four)
        boxes.append(smallest_rectangle(four))
        names.append(name)
        difficult.append(hard)
    if faults:
        log.warning("'%s': %d object(s) left out; %s.", path, len(faults), "; ".join(faults[:4]))
    corners_of, rectangles = np.array(points).reshape(-1, 4, 2), np.array(boxes).reshape(-1, 5)
    return Labels(corners_of, rectangles, names, np.array(difficult, bool), len(faults))


def parsed(fields: Sequence[str], where: str) -> tuple[np.ndarray, str, bool]:
    """Corners (4, 2), class and difficult of a line's fields."""
    try:
        if len(fields) not in (9, 10):
            raise ValueError
        four = np.array([float(value) for value in fields[:8]]).reshape(4, 2)
        hard = int(fields[9]) if len(fields) == 10 else 0
    except ValueError:
        raise UsageError(
            f"{where} is {' '.join(fields)!r}, but it must be x1 y1 x2 y2 x3 y3 x4 y4 class difficult, the last 0 or 1."
        ) from None
    return four, fields[8], hard != 0


def outside(points: np.ndarray, size: tuple[int, int]) -> str | None:
    centre = (points.min(0) + points.max(0)) / 2
    inside = (centre >= 0).all() and (centre <= size).all()
    return None if inside else f"its centre is outside the image of {size[0]}×{size[1]}"


def write_labels(path: Path, boxes: np.ndarray, names: Sequence[str], difficult: np.ndarray) -> None:
    """A `labelTxt` file of rotated boxes (T, 5)."""
    rows = zip(corners(boxes).reshape(-1, 8), names, difficult, strict=True)
    lines = [f"{' '.join(f'{value:.4f}' for value in four)} {name} {int(hard)}\n" for four, name, hard in rows]
    with whole_file(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")


def write_detections(folder: Path, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """`Task1_<class>.txt` for every class, a line each: image score x1 y1 … x4 y4.

    Args:
        found: of each image, by its name without ending, detections (D, 7): cx, cy, w, h, θ, score, class.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        lines = [
            f"{image} {row[5]:.6f} {' '.join(f'{value:.4f}' for value in four)}\n"
            for image, rows in found.items()
            for row, four in zip(rows, corners(rows[:, :5]).reshape(-1, 8), strict=True)
            if int(row[6]) == place
        ]
        with whole_file(folder / f"Task1_{name}.txt") as unfinished:
            unfinished.write_text("".join(lines), encoding="utf-8")


def read_detections(folder: Path) -> dict[str, list[tuple[str, float, np.ndarray]]]:
    """By class, the image, score and corners (4, 2) of each line of a folder's `Task1_<class>.txt`.

    Raises:
        UsageError: there is no such file, or a line is of another form.
    """
    files = sorted(folder.glob("Task1_*.txt"))
    if not files:
        raise UsageError(f"'{folder}' has no file Task1_<class>.txt: name a folder of detections in DOTA's form.")
    return {file.stem.removeprefix("Task1_"): [detection(line, file) for line in lines_of(file)] for file in files}


def lines_of(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def detection(line: str, file: Path) -> tuple[str, float, np.ndarray]:
    image, *numbers = line.split()
    try:
        score, *four = [float(value) for value in numbers]
        return image, score, np.array(four).reshape(4, 2)
    except ValueError:
        raise UsageError(
            f"'{file}' has the line {line!r}, but it must be: image score x1 y1 x2 y2 x3 y3 x4 y4."
        ) from None
