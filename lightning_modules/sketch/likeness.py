"""How alike drawings are: Chamfer distances, and whether a network draws anew or copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from datamodules.strokes.forms import Polylines

MOST = 1000  # training drawings that are compared with


def in_unit_box(lines: Polylines) -> np.ndarray:
    """All points of a drawing (N, 2), moved and scaled by one factor so that the larger side is 1."""
    points = np.concatenate(lines)
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) / max((high - low).max(), 1e-9)


class Cloud:
    """A drawing's points in the unit box, to be compared with others'."""

    def __init__(self, lines: Polylines):
        self.points = in_unit_box(lines)
        self.tree = cKDTree(self.points)

    def distance(self, other: Cloud) -> float:
        """Chamfer: the mean distance of each point to the other's nearest, both ways."""
        return float(self.tree.query(other.points)[0].mean() + other.tree.query(self.points)[0].mean()) / 2


def nearest(drawings: Sequence[Cloud], known: Sequence[Cloud]) -> tuple[np.ndarray, np.ndarray]:
    """For each drawing the number of the known one that is nearest, and its distance."""
    table = np.array([[drawing.distance(other) for other in known] for drawing in drawings])
    return table.argmin(1), table.min(1)


def spread(rows: int, most: int) -> np.ndarray:
    """Up to `most` of so many row numbers, evenly."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(int))
