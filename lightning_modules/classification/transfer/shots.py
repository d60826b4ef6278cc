"""How much labelled data features need: the stage `shots`, accuracy against training images of a class.

The features of all training images are computed once. Of each class the first n of a permutation are fitted to, so that
a smaller n lies within a larger one; every n has its own search in folds.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.transfer.folds import Machine, search
from lightning_modules.classification.transfer.stages import MACHINES, Rows, features_of, fit_rows, machine_of

log = logging.getLogger(__name__)

FILE = "shots.csv"


@dataclass(frozen=True)
class ShotSettings:
    """`shots` of the configuration.

    numbers: training images of a class; all that there are come last in any case.
    draws: of the images, of each number.
    """

    numbers: Sequence[int] = (5, 10, 20, 50, 100, 200)
    draws: int = 3

    def __post_init__(self) -> None:
        whole = [isinstance(n, int) and not isinstance(n, bool) and n >= 2 for n in self.numbers]
        if not all(whole):
            raise UsageError(f"shots.numbers is {list(self.numbers)}, but it must be whole numbers, 2 or more.")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 1:
            raise UsageError(f"shots.draws is {self.draws!r}, but it must be a whole number, 1 or more.")

    @classmethod
    def of(cls, config: Any) -> ShotSettings:
        given = config.get("shots") or {}
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})


class Shot(NamedTuple):
    """One fit: how many images of a class, of which draw, its test accuracy, and the seconds of search and fit."""

    machine: str
    number: int
    draw: int
    accuracy: float
    seconds: float


def first_of_each(labels: np.ndarray, number: int, draw: int) -> np.ndarray:
    """The rows of `number` images of each class; of another number by the same draw the fewer are among the more."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(np.random.default_rng((draw, label)).permutation(rows)[:number])
    return np.sort(np.concatenate(chosen))


def shots(
    name: str, machine: Machine, train: Rows, test: tuple[np.ndarray, np.ndarray],
    settings: ShotSettings, seed: int,
) -> list[Shot]:  # fmt: skip
    """`test`: features (m, D) and labels (m,). Where images have groups, folds of the search keep them together."""
    x, y, found = train.x, train.y, []
    every = int(np.bincount(y).min())
    numbers = [number for number in sorted(set(settings.numbers)) if number < every]
    for number, draw in [(n, d) for n in numbers for d in range(settings.draws)] + [(every, 0)]:
        rows = first_of_each(y, number, draw) if number < every else np.arange(len(y))
        groups = None if train.groups is None else train.groups[rows]
        alone = rows if groups is None else groups
        folds = min(machine.folds, *(len(np.unique(alone[y[rows] == label])) for label in np.unique(y)))
        started = time.perf_counter()
        point = search(machine, x[rows], y[rows], groups, folds, seed).point
        pipeline = machine.fitted(x[rows], y[rows], point)
        seconds = time.perf_counter() - started
        accuracy = float((pipeline.predict(test[0]) == test[1]).mean())
        found.append(Shot(name, number, draw, accuracy, seconds))
        log.info("%s: %d images of a class, draw %d: accuracy %.4f", name, number, draw, accuracy)
    return found


def run_shots(network: Classifier, run: Any) -> None:
    """Both machines on fewer and fewer images; leaves `shots.csv`."""
    data, settings = run.datamodule, ShotSettings.of(run.config)
    features = {name: part for name, part in features_of(network, run).items() if name != "train_mirrored"}
    rows, _ = fit_rows(data, features)
    test = features["test"].astype(np.float64), np.asarray(data.splits["test"].labels)
    found = []
    for name in MACHINES:
        own = shots(name, machine_of(name, run.config), rows, test, settings, run.config.seed)
        run.metrics[f"shots/{name}/accuracy_all"] = round(own[-1].accuracy, 6)
        for number in sorted({shot.number for shot in own[:-1]}):
            mean = np.mean([shot.accuracy for shot in own if shot.number == number])
            run.metrics[f"shots/{name}/accuracy_{number}"] = round(float(mean), 6)
        found += own
    write_shots(run.folder / FILE, found)
    log.info("shots: %s", run.folder / FILE)


def write_shots(path: Path, found: Sequence[Shot]) -> None:
    with whole_file(path) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Shot._fields)
        writer.writerows([[*shot[:3], f"{shot.accuracy:.6f}", f"{shot.seconds:.3f}"] for shot in found])


def read_shots(path: Path) -> list[Shot]:
    with open(path, newline="") as file:
        return [
            Shot(row["machine"], int(row["number"]), int(row["draw"]), float(row["accuracy"]), float(row["seconds"]))
            for row in csv.DictReader(file)
        ]
