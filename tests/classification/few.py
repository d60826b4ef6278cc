"""Little to learn from: Gaussian classes, and some of the digits."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.images.digits import Digits
from datamodules.images.shared.image import Split


def blobs(classes: int, each: int, columns: int = 6, apart: float = 1.0, seed: int = 0):
    """Gaussian classes, the centres `apart` in every column."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.standard_normal((classes, columns))
    y = np.repeat(np.arange(classes), each)
    return (centres[y] + rng.standard_normal((len(y), columns))).astype(np.float32), y


def fewer_digits(patched: pytest.MonkeyPatch, step: int) -> None:
    """Of the embedded digits every `step`th image of each split alone."""
    whole = Digits.load_splits

    def load_splits(self: Digits) -> dict[str, Split]:
        return {name: Split(*(part[::step] for part in split)) for name, split in whole(self).items()}

    patched.setattr(Digits, "load_splits", load_splits)
