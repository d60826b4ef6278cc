"""How alike drawings are: Chamfer distances, and whether a network draws anew or copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from datamodules.strokes.forms import Polylines


def in_unit_box(lines: Polylines) -> np.ndarray:
    """All points of a drawing (N, 2), moved and scaled by one factor so that the larger side is 1."""
    points = np.concatenate(lines)
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / max((high - low).max(), 1e-9)


def chamfer(drawings: Sequence[Polylines], known: Sequence[Polylines]) -> np.ndarray:
    """The distance of each drawing to each known one (drawings, known), all in the unit box: the mean distance of a
    point to the other's nearest, both ways."""
    others = [in_unit_box(lines) for lines in known]
    counts = np.array([len(points) for points in others])
    starts, joined = np.cumsum(counts) - counts, np.concatenate(others)
    table = np.empty((len(drawings), len(known)))
    for row, lines in zip(table, drawings, strict=True):
        distances = cdist(in_unit_box(lines), joined)
        there = np.minimum.reduceat(distances, starts, axis=1).mean(0)
        back = np.add.reduceat(distances.min(0), starts) / counts
        row[:] = (there + back) / 2
    return table


def spread(rows: int, most: int) -> np.ndarray:
    """Up to `most` of so many row numbers, evenly."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(int))
