"""Five symbols drawn by a program, and how one was drawn, read back from its strokes alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from datamodules.strokes.forms import Polylines

SYMBOLS = ("circle", "triangle", "square", "star", "face")
STROKES = {"circle": 1, "triangle": 1, "square": 1, "star": 1, "face": 4}
CORNERS = {"triangle": 3, "square": 4, "star": 5}
RADIUS = 50.0  # of the whole drawing, in its own units
UP = -np.pi / 2  # y points down


class How(NamedTuple):
    """How a symbol was drawn; None where its class does not have it.

    corner: the first, numbered clockwise from the uppermost (of the square from the upper right one).
    clockwise: of the outline, as seen.
    left_eye_first, mouth_rightwards: of a face.
    """

    corner: int | None
    clockwise: bool
    left_eye_first: bool | None = None
    mouth_rightwards: bool | None = None


def corner_angles(symbol: str) -> np.ndarray:
    """The angle of each corner about the centre, clockwise as seen."""
    count = CORNERS[symbol]
    first = UP + (np.pi / 4 if symbol == "square" else 0)
    return first + 2 * np.pi * np.arange(count) / count


def draw_symbol(symbol: str, rng: np.random.Generator) -> tuple[Polylines, How]:
    """One drawing by an unsteady hand, in units of its own.

    First corner uniform, direction 50 : 50, a face's eyes in either order and its mouth in either direction; circles
    begin near their top and overshoot their start. The hand wobbles by an AR(1) process; the whole is scaled by ±20 %
    and rotated by 0.1 rad (one standard deviation).
    """
    clockwise = bool(rng.random() < 0.5)
    if symbol in CORNERS:
        corner = int(rng.integers(CORNERS[symbol]))
        lines, how = [corner_outline(symbol, corner, clockwise, rng)], How(corner, clockwise)
    elif symbol == "circle":
        lines, how = [circle_outline(clockwise, int(rng.integers(17, 23)), rng)], How(None, clockwise)
    else:
        lines, how = face(clockwise, rng)
    angle, size = rng.normal(0, 0.1), RADIUS * rng.uniform(0.8, 1.2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [size * (line + wobble(len(line), rng)) @ turn for line in lines], how


def wobble(points: int, rng: np.random.Generator) -> np.ndarray:
    """An unsteady hand: AR(1) with coefficient 0.8, in parts of the radius (points, 2)."""
    steps, found = rng.normal(0, 0.012, (points, 2)), np.empty((points, 2))
    state = np.zeros(2)
    for number, step in enumerate(steps):
        state = 0.8 * state + step
        found[number] = state
    return found


def circle_outline(clockwise: bool, points: int, rng: np.random.Generator) -> np.ndarray:
    """Once round and a little more, from near the top."""
    turn = (2 * np.pi + rng.uniform(0, 0.3)) * (1 if clockwise else -1)
    angles = UP + rng.normal(0, 0.25) + turn * np.linspace(0, 1, points)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def corner_outline(symbol: str, corner: int, clockwise: bool, rng: np.random.Generator) -> np.ndarray:
    """Straight sides from a corner round to it again; a star's lead to the next corner but one."""
    count, step = CORNERS[symbol], (2 if symbol == "star" else 1) * (1 if clockwise else -1)
    order = (corner + step * np.arange(count + 1)) % count
    angles = corner_angles(symbol)[order]
    corners = np.column_stack([np.cos(angles), np.sin(angles)])
    low, high = {"triangle": (6, 9), "square": (5, 7), "star": (4, 6)}[symbol]
    pieces = [corners[:1]]
    for start, end in pairwise(corners):
        pieces.append(start + (end - start) * np.linspace(0, 1, int(rng.integers(low, high)) + 1)[1:, None])
    return np.concatenate(pieces)


def face(clockwise: bool, rng: np.random.Generator) -> tuple[Polylines, How]:
    """A circle, two eyes, and a mouth that smiles."""
    left_first, rightwards = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    eyes = []
    for side in (-1, 1) if left_first else (1, -1):
        angles = UP + 2 * np.pi * np.linspace(0, 1, 5) * (1 if rng.random() < 0.5 else -1)
        middle = np.array([0.38 * side, -0.3]) + rng.normal(0, 0.03, 2)
        eyes.append(middle + 0.11 * np.column_stack([np.cos(angles), np.sin(angles)]))
    along = np.linspace(-1, 1, int(rng.integers(5, 8)))
    mouth = np.column_stack([0.45 * along, 0.5 - 0.22 * along**2]) + rng.normal(0, 0.03, 2)
    outline = circle_outline(clockwise, int(rng.integers(15, 19)), rng)
    return [outline, *eyes, mouth if rightwards else mouth[::-1]], How(None, clockwise, left_first, rightwards)


def read_symbol(lines: Polylines, symbol: str) -> How | None:
    """How a drawing of this class was drawn; None when its strokes are not as many as the class has."""
    if len(lines) != STROKES[symbol] or any(len(line) < 2 for line in lines):
        return None
    outline = lines[0] - middle_of(lines[0])
    x, y = np.concatenate([outline, outline[:1]]).T
    clockwise = bool((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0)
    if symbol in CORNERS:
        off = np.angle(np.exp(1j * (np.arctan2(*outline[0][::-1]) - corner_angles(symbol))))
        return How(int(np.abs(off).argmin()), clockwise)
    if symbol == "circle":
        return How(None, clockwise)
    first, second, mouth = lines[1].mean(0), lines[2].mean(0), lines[3]
    return How(None, clockwise, bool(first[0] < second[0]), bool(mouth[0, 0] < mouth[-1, 0]))


def middle_of(line: np.ndarray) -> np.ndarray:
    """The middle of a line by its length, wherever its points lie."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    return ((line[:-1] + line[1:]) / 2 * steps[:, None]).sum(0) / max(steps.sum(), 1e-12)


def features_inside(lines: Polylines) -> bool:
    """Do a face's eyes and mouth lie inside its outline?"""
    from matplotlib.path import Path

    return bool(Path(lines[0]).contains_points(np.concatenate(lines[1:])).all())


def closure_error(line: np.ndarray) -> float:
    """How far an outline's end lies from its start, in parts of its length."""
    return float(np.hypot(*(line[-1] - line[0])) / max(np.hypot(*np.diff(line, axis=0).T).sum(), 1e-12))


# Questions whose answers are as likely as each other: name, classes, answer of a `How`, how many answers there are.
QUESTIONS: tuple[tuple[str, tuple[str, ...], Callable[[How], int], Callable[[str], int]], ...] = (
    ("first corner", tuple(CORNERS), lambda how: how.corner, CORNERS.__getitem__),
    ("clockwise", SYMBOLS, lambda how: how.clockwise, lambda symbol: 2),
    ("left eye first", ("face",), lambda how: how.left_eye_first, lambda symbol: 2),
    ("mouth rightwards", ("face",), lambda how: how.mouth_rightwards, lambda symbol: 2),
)


def frequencies(lines: list[Polylines], symbol: str) -> dict[str, np.ndarray]:
    """How often each answer to the class's questions is found; drawings with a wrong number of strokes are left out."""
    ways = [how for own in lines if (how := read_symbol(own, symbol)) is not None]
    return {
        name: np.bincount([int(answer(how)) for how in ways], minlength=answers(symbol))
        for name, symbols, answer, answers in QUESTIONS
        if symbol in symbols
    }


def chance(counts: np.ndarray) -> float:
    """χ² test: how likely counts at least as uneven are, when all answers are as likely."""
    from scipy.stats import chisquare

    return float(chisquare(counts).pvalue) if counts.sum() else 0.0
