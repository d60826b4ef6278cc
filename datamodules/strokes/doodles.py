"""Circles, triangles, squares, stars and faces drawn by a program that leaves the way they are drawn to chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.errors import UsageError
from datamodules.strokes.forms import from_polylines
from datamodules.strokes.sketches import Drawings, SketchDataModule, drawings
from datamodules.strokes.symbols import SYMBOLS, draw_symbol

SPLITS = ("train", "val", "test")


class Doodles(SketchDataModule):
    """`data=doodles`: needs no download. Each split is drawn from a random stream of its own.

    How often each corner comes first and each direction is taken is known (`datamodules.strokes.symbols`), so that a
    network's own drawings can be held to it.

    Args:
        train_items, val_items, test_items: drawings of each split, as many of each class.
        doodle_seed: of the drawings: runs with other seeds share their data.
        others: see `SketchDataModule`.
    """

    def __init__(
        self,
        train_items: int = 4000,
        val_items: int = 500,
        test_items: int = 500,
        doodle_seed: int = 0,
        classes: Sequence[str] = (),
        **others: Any,
    ):
        super().__init__(classes=classes, **others)
        self.items, self.doodle_seed = dict(zip(SPLITS, (train_items, val_items, test_items), strict=True)), doodle_seed
        for split, items in self.items.items():
            if not isinstance(items, int) or items < len(SYMBOLS):
                raise UsageError(
                    f"data.{split}_items is {items!r}, but it must be a whole number of drawings, {len(SYMBOLS)} or "
                    "more, so that each class has one."
                )

    @property
    def source(self) -> str:
        return "five symbols drawn by a program, made for this project"

    def load_drawings(self) -> tuple[dict[str, Drawings], tuple[str, ...]]:
        found = {}
        for number, (split, items) in enumerate(self.items.items()):
            rng = np.random.default_rng((self.doodle_seed, number + 1))  # from 1: numpy takes (seed, 0) for (seed,)
            labels = np.arange(items) % len(SYMBOLS)
            found[split] = drawings([from_polylines(draw_symbol(SYMBOLS[n], rng)[0]) for n in labels], labels)
        return found, SYMBOLS
