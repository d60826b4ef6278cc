"""Kanji, and any other file of drawings in the form that sketch-rnn publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.errors import UsageError
from datamodules.strokes.files import read_npz
from datamodules.strokes.sketches import Drawings, SketchDataModule, drawings

FILE = "sketch_rnn/short_kanji.npz"


class Kanji(SketchDataModule):
    """`data=kanji`: 10,000 short kanji without classes; a training drawing that occurs twice, or in another split, is
    left out.

    Args:
        folder: where data files lie, `paths.data`.
        path: a file of the same form, of one class, in its place; None: the kanji.
        others: see `SketchDataModule`.

    Source: KanjiVG (Ulrich Apel, CC BY-SA 3.0), as in hardmaru/sketch-rnn-datasets.

    Raises:
        UsageError: the file is not there, or holds something else.
    """

    def __init__(self, folder: str, path: str | None = None, **others: Any):
        super().__init__(**others)
        self.path = Path(str(path or Path(folder) / FILE)).expanduser().absolute()
        self.copies = 0  # training drawings left out

    @property
    def source(self) -> str:
        return f"{self.path.name}, {self.copies} training drawings that occur elsewhere left out"

    def load_drawings(self) -> tuple[dict[str, Drawings], tuple[str, ...]]:
        if not self.path.is_file():
            raise UsageError(
                f"There is no {self.path}: set paths.data=FOLDER or ETUDES_DATA=FOLDER to where {FILE} is, or take "
                "data=doodles, which needs no download."
            )
        read = read_npz(self.path)
        seen = {strokes.tobytes() for split in ("val", "test") for strokes in read[split]}
        train = []
        for strokes in read["train"]:
            if (content := strokes.tobytes()) not in seen:
                train.append(strokes)
                seen.add(content)
        self.copies = len(read["train"]) - len(train)
        return {split: drawings(own, [0] * len(own)) for split, own in {**read, "train": train}.items()}, ()
