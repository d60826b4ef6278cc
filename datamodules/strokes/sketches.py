"""What every dataset of drawings shares: splits held in memory, one scale of all offsets, loaders, and the spec."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.loader import ArrayLoader
from datamodules.module import SplitDataModule
from datamodules.spec import SketchSpec
from datamodules.strokes.batches import Jitter, PadDrawings, ragged
from datamodules.strokes.forms import dequantized

log = logging.getLogger(__name__)


class Drawings(NamedTuple):
    """A split: stroke-3 in the data's own units, as objects (N,); their classes (N,); whether each is fit to train the
    judge on (N,)."""

    strokes: np.ndarray
    labels: np.ndarray
    clear: np.ndarray

    def taken(self, rows: np.ndarray) -> Drawings:
        return Drawings(*(part[rows] for part in self))


def drawings(strokes: list[np.ndarray], labels: Sequence[int], clear: Sequence[bool] | None = None) -> Drawings:
    """A split from lists; all fit for the judge unless told."""
    clear = np.ones(len(strokes), bool) if clear is None else np.array(clear, bool)
    return Drawings(ragged(strokes), np.array(labels, np.int64), clear)


class SketchDataModule(SplitDataModule):
    """Splits `train`, `val` and `test` of drawings, and loaders of `SketchBatch`es over them.

    A dataset implements `load_drawings`. `prepare_data` runs on every process; after it `spec` and `splits` are known.
    Offsets are divided by one number, the standard deviation of all Δx and Δy of the training split; their mean stays.

    Args:
        batch_size, eval_batch_size: drawings per batch, per device.
        length: drawings of more points are left out, and counted; None: of the test only those longer than all that
            are trained on.
        scale_jitter: each axis of a training drawing is stretched or shrunk by so much at most, a share.
        drop_points: the chance of a stroke's inner point to be left out in training.
        classes: names of those to keep; empty: all.
        dequantize: move each point within its unit square; without it densities of whole numbers have no bound.
        seed: of the training order.

    Raises:
        UsageError: a setting is impossible.
    """

    apart = True  # a drawing says no more of those of other splits than of its own: splits may be mixed for a judge

    def __init__(
        self,
        batch_size: int = 100,
        eval_batch_size: int = 100,
        length: int | None = None,
        scale_jitter: float = 0.0,
        drop_points: float = 0.0,
        classes: Sequence[str] = (),
        dequantize: bool = False,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed, "drawings")
        if length is not None and (not isinstance(length, int) or length < 2):
            raise UsageError(f"data.length is {length!r}, but it must be a whole number of points, 2 or more, or null.")
        for name, share in {"scale_jitter": scale_jitter, "drop_points": drop_points}.items():
            if not 0 <= share < 1:
                raise UsageError(f"data.{name} is {share}, but it must be a share from 0 up to, not including, 1.")
        self.length = length
        self.scale_jitter, self.drop_points, self.dequantize = scale_jitter, drop_points, dequantize
        self.chosen = [str(name) for name in classes]
        self.splits: dict[str, Drawings] = {}
        self.names: tuple[str, ...] = ()
        self.left_out: dict[str, int] = {}  # drawings of each split that are too long

    @abstractmethod
    def load_drawings(self) -> tuple[dict[str, Drawings], tuple[str, ...]]:
        """The splits `train`, `val` and `test`, and the classes' names, none without classes."""

    @property
    def source(self) -> str:
        """What a reader of this data's figures must know."""
        return ""

    @property
    def note(self) -> str:
        told = [self.source] if self.source else []
        if any(self.left_out.values()):
            counted = ", ".join(f"{count} of {split}" for split, count in self.left_out.items() if count)
            told.append(f"too long and left out: {counted}")
        return "; ".join(told)

    @property
    def spec(self) -> SketchSpec:
        return SketchSpec(self.longest + 1, self.scale, len(self.names), self.names)

    def prepare_data(self) -> None:
        if self.splits:
            return
        splits, names = self.load_drawings()
        if self.chosen:
            splits, names = of_classes(splits, names, self.chosen)
        splits = self.short_enough(splits)
        train = splits["train"].strokes
        self.longest = max(map(len, train))
        offsets = np.concatenate([strokes[:, :2] for strokes in train])
        self.scale = float(offsets.std())
        check_offsets(train, self.scale)
        for number, split in enumerate(("val", "test")) if self.dequantize else ():
            rng = np.random.default_rng((number, 0))  # the same whatever the seed: a test is always the same
            moved = [dequantized(strokes, rng) for strokes in splits[split].strokes]
            splits[split] = splits[split]._replace(strokes=ragged(moved))
        self.splits, self.names = splits, names

    def short_enough(self, splits: dict[str, Drawings]) -> dict[str, Drawings]:
        """Without drawings that are longer than `length`, or than all that are trained on.

        Raises:
            UsageError: of a split nothing is left.
        """
        most, kept = self.length, {}
        for split in ("train", "val", "test"):
            points = np.array([len(strokes) for strokes in splits[split].strokes])
            fits = points <= (most or max(points, default=0))
            if not fits.any():
                raise UsageError(
                    f"No drawing of {split} is left: the shortest has {min(points, default=0)} points; raise "
                    "data.length, or choose other classes."
                )
            kept[split], self.left_out[split] = splits[split].taken(fits), int((~fits).sum())
            most = most if split != "train" else int(points[fits].max())
        if any(self.left_out.values()):
            log.info("Drawings that are too long are left out: %s.", self.left_out)
        return kept

    def jitter(self) -> Jitter:
        """What training drawings become each time."""
        return Jitter(self.scale_jitter, self.drop_points, self.dequantize)

    def _loader(self, split: str) -> ArrayLoader:
        own = self.splits[split]
        return ArrayLoader(
            (own.strokes, own.labels),
            **self.dealt(split),
            augment=self.jitter() if split == "train" else None,
            collate=PadDrawings(self.scale),
        )


def of_classes(
    splits: dict[str, Drawings], names: tuple[str, ...], chosen: Sequence[str]
) -> tuple[dict[str, Drawings], tuple[str, ...]]:
    """The splits of the chosen classes alone, numbered in the order they are named.

    Raises:
        UsageError: there is no such class.
    """
    for name in chosen:
        if name not in names:
            raise UsageError(
                f"data.classes names '{name}'{did_you_mean(name, names)}, but this data has "
                f"{', '.join(names[:12]) + (', …' if len(names) > 12 else '') if names else 'no classes'}."
            )
    found = {}
    for split, own in splits.items():
        kept = own.taken(np.isin(own.labels, [names.index(name) for name in chosen]))
        found[split] = kept._replace(labels=np.array([chosen.index(names[label]) for label in kept.labels], np.int64))
    return found, tuple(chosen)


def check_offsets(train: np.ndarray, scale: float) -> None:
    """Raises UsageError when all offsets are 0, or all drawings begin alike, which would be free of cost."""
    if not scale > 0:
        raise UsageError("All offsets of the training drawings are 0: there is nothing to draw.")
    first = np.array([strokes[0, :2] for strokes in train])
    if len(first) > 1 and (first == first[0]).all():
        raise UsageError(
            f"All training drawings begin with the offset ({first[0, 0]:g}, {first[0, 1]:g}), whose density has no "
            "bound: let each begin at the top left corner of its bounding box."
        )
