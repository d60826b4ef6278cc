"""Classes that are never trained on: their test images are a split of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.errors import UsageError
from datamodules.images.shared.image import Split


def held_out_classes(number: int, classes: int) -> list[int]:
    """So many of the classes, spread evenly over their numbers.

    Raises:
        UsageError: fewer than two classes would be left to train on.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= classes - 2:
        raise UsageError(
            f"data.held_out is {number!r}, but it must be from 0 to {classes - 2}: of {classes} classes at least two "
            "must be left to train on."
        )
    return [(2 * place + 1) * classes // (2 * number) for place in range(number)]


def hold_out(splits: dict[str, Split], held_out: Sequence[int]) -> dict[str, Split]:
    """The splits without these classes, and with their test images as the split `unseen`; labels stay as they were."""
    if not held_out:
        return splits
    found = {name: of_classes(split, held_out, among=False) for name, split in splits.items()}
    return {**found, "unseen": of_classes(splits["test"], held_out, among=True)}


def of_classes(split: Split, classes: Sequence[int], among: bool) -> Split:
    """The images whose class is among these, or is not."""
    chosen = np.flatnonzero(np.isin(split.labels, classes) == among)
    return Split(split.images[chosen], split.labels[chosen])
