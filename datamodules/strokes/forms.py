"""The forms of a drawing: polylines, stroke-3 and stroke-5, and what is done to them before training.

Polylines: a list of strokes (n, 2), x to the right and y down. Stroke-3: one array (N, 3) of Δx, Δy and whether the pen
is lifted after this point. Stroke-5 (Ha & Eck 2017, arXiv 1704.03477, Section 3.1): Δx, Δy and one of three pens: down
to the next point, lifted after this point, drawing over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.errors import UsageError

DOWN, LIFTED, END = range(3)  # the pens
Strokes = np.ndarray  # (N, 3)
Polylines = list[np.ndarray]


def from_polylines(polylines: Sequence[np.ndarray]) -> Strokes:
    """Stroke-3; the first offset leads from the top left corner of the bounding box to the first point."""
    points = np.concatenate([np.asarray(line, np.float64).reshape(-1, 2) for line in polylines])
    lifts = np.concatenate([np.arange(len(line)) == len(line) - 1 for line in polylines])
    offsets = np.diff(points, axis=0, prepend=points.min(0, keepdims=True))
    return np.column_stack([offsets, lifts])


def to_polylines(strokes: Strokes) -> Polylines:
    """The strokes; (0, 0) is where the first offset begins."""
    points = np.cumsum(strokes[:, :2], axis=0)
    return [line for line in np.split(points, np.flatnonzero(strokes[:, 2]) + 1) if len(line)]


def to_five(strokes: Strokes, length: int) -> np.ndarray:
    """Stroke-5 (length, 5): the points, then ends."""
    five = np.zeros((length, 5), np.float32)
    points = len(strokes)
    five[:points, :2] = strokes[:, :2]
    five[:points, 2 + DOWN] = 1 - strokes[:, 2]
    five[:points, 2 + LIFTED] = strokes[:, 2]
    five[points:, 2 + END] = 1
    return five


def from_five(five: np.ndarray) -> Strokes:
    """Stroke-3 of what comes before the first end."""
    ends = np.flatnonzero(five[:, 2 + END])
    own = five[: ends[0]] if len(ends) else five
    return np.column_stack([own[:, :2], own[:, 2 + LIFTED]])


def drop_points(strokes: Strokes, share: float, rng: np.random.Generator) -> Strokes:
    """Leaves out points with this chance each, but for the first and last of a stroke; the others stay where they are.

    From magenta's sketch_rnn; the paper does not have it.
    """
    if not share:
        return strokes
    lifted = strokes[:, 2] > 0
    ends = lifted | np.concatenate([[True], lifted[:-1]])
    kept = ends | (rng.random(len(strokes)) >= share)
    points = np.cumsum(strokes[:, :2], axis=0)[kept]
    return np.column_stack([np.diff(points, axis=0, prepend=np.zeros((1, 2))), strokes[kept, 2]])


def dequantized(strokes: Strokes, rng: np.random.Generator) -> Strokes:
    """Each point of an integer drawing moved within its unit square: a density of whole numbers has no bound."""
    noise = rng.uniform(-0.5, 0.5, (len(strokes), 2))
    moved = strokes.astype(np.float64)
    moved[:, :2] += np.diff(noise, axis=0, prepend=np.zeros((1, 2)))
    return moved


def simplified(points: np.ndarray, tolerance: float) -> np.ndarray:
    """A polyline (n, 2) without the points that lie within `tolerance` of what is left (Ramer 1972, Douglas & Peucker
    1973). A closed one is cut in two halves first, at the point farthest from its start."""
    if len(points) < 3:
        return points
    line = points[-1] - points[0]
    length = np.hypot(*line)
    from_start = points - points[0]
    if length > 1e-12:
        distance = np.abs(from_start[:, 0] * line[1] - from_start[:, 1] * line[0]) / length
    else:
        distance = np.hypot(*from_start.T)
    place = int(distance.argmax())
    if distance[place] <= tolerance:
        return points[[0, -1]]
    return np.concatenate([simplified(points[: place + 1], tolerance)[:-1], simplified(points[place:], tolerance)])


def checked(strokes: np.ndarray, name: str) -> Strokes:
    """A drawing's stroke-3 as float64.

    Raises:
        UsageError: it is none; the message begins with `name`.
    """
    strokes = np.asarray(strokes)
    if strokes.ndim != 2 or strokes.shape[1] != 3 or strokes.dtype.kind not in "iuf":
        raise UsageError(
            f"{name} is an array {strokes.shape} of {strokes.dtype}, but a drawing is (points, 3) numbers: "
            "Δx, Δy, lift."
        )
    strokes = strokes.astype(np.float64)
    if not len(strokes):
        raise UsageError(f"{name} has no points.")
    if not np.isfinite(strokes).all():
        row = np.flatnonzero(~np.isfinite(strokes).all(1))[0]
        raise UsageError(f"{name} has a value that is no finite number in row {row}: leave the drawing out.")
    if len(wrong := np.flatnonzero(~np.isin(strokes[:, 2], (0, 1)))):
        raise UsageError(f"{name} has the lift flag {strokes[wrong[0], 2]:g} in row {wrong[0]}, but it must be 0 or 1.")
    strokes[-1, 2] = 1  # the pen leaves the paper at the end, whatever was written
    return strokes
