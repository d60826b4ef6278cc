"""Some of a data set's classes, by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import Split


def chosen_classes(chosen: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The names as a list, all without a choice.

    Raises:
        UsageError: there is no such class, one is named twice, or fewer than two are left.
    """
    if chosen is None:
        return list(names)
    if isinstance(chosen, str) or len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise UsageError(f"data.classes is {chosen!r}, but it must be a list of two or more of {', '.join(names)}.")
    for name in chosen:
        if name not in names:
            near = did_you_mean(str(name), names)
            raise UsageError(f"data.classes names {name!r}{near}, but the classes are {', '.join(names)}.")
    return list(chosen)


def of_names(split: Split, chosen: Sequence[str], names: Sequence[str]) -> tuple[Split, np.ndarray]:
    """The images of these classes, numbered as they were chosen, and their rows in the split."""
    if list(chosen) == list(names):
        return split, np.arange(len(split.labels))
    new = np.full(len(names), -1)
    new[[list(names).index(name) for name in chosen]] = np.arange(len(chosen))
    rows = np.flatnonzero(new[split.labels] >= 0)
    return Split(split.images[rows], new[split.labels[rows]]), rows
