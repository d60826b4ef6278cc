"""Classes that lie in superclasses, and these in groups: what data sets with three labels for an image share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import Split

LEVELS = ("fine", "super", "group")


class Hierarchy(NamedTuple):
    """The names of each of LEVELS, and the superclass and the group of each fine class."""

    names: tuple[list[str], list[str], list[str]]
    supers: tuple[int, ...]
    groups: tuple[int, ...]


def make_hierarchy(superclasses: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]) -> Hierarchy:
    """Of each superclass its fine classes, of each group its superclasses; fine classes are numbered by the alphabet.

    Raises:
        UsageError: a superclass is in no group or in two, or a group names one that does not exist.
    """
    named = [name for members in groups.values() for name in members]
    for name in named:
        if name not in superclasses:
            near = did_you_mean(name, superclasses)
            raise UsageError(f"data.groups names '{name}', which is no superclass{near}.")
    for name in superclasses:
        if named.count(name) != 1:
            raise UsageError(f"data.groups has the superclass '{name}' {named.count(name)} times, but once it must be.")
    super_names, group_names = list(superclasses), list(groups)
    super_of = {name: number for number, members in enumerate(superclasses.values()) for name in members}
    group_of = {name: number for number, members in enumerate(groups.values()) for name in members}
    fine = sorted(super_of)
    supers = tuple(super_of[name] for name in fine)
    return Hierarchy((fine, super_names, group_names), supers, tuple(group_of[super_names[s]] for s in supers))


def balancing_weights(hierarchy: Hierarchy, train: Split, balance: str) -> np.ndarray | None:
    """The chance of each training image to be drawn, so that all labels of the level `balance` come equally often; None
    for `none`."""
    if balance == "none":
        return None
    coarser = {"fine": range(len(hierarchy.supers)), "super": hierarchy.supers, "group": hierarchy.groups}
    labels = np.asarray(coarser[balance])[train.labels]
    weights = 1 / np.bincount(labels)[labels]
    return weights / weights.sum()


def check_balance(balance: str) -> None:
    """Raises UsageError when there is no such level."""
    if balance not in (known := ("none", *LEVELS)):
        raise UsageError(f"data.balance is {balance}{did_you_mean(str(balance), known)}: choose {', '.join(known)}.")
