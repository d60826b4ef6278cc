"""Gaussian classes to learn from."""

from __future__ import annotations

import numpy as np


def blobs(classes: int, each: int, columns: int = 6, apart: float = 1.0, seed: int = 0):
    """Gaussian classes, the centres `apart` in every column."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.standard_normal((classes, columns))
    y = np.repeat(np.arange(classes), each)
    return (centres[y] + rng.standard_normal((len(y), columns))).astype(np.float32), y
