"""Quick, Draw!: drawings made in twenty seconds, simplified as published, or a folder of one's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import UsageError
from datamodules.strokes.files import read_ndjson, read_npz
from datamodules.strokes.sketches import Drawings, SketchDataModule, drawings

FILE = "quickdraw/quickdraw_simplified_344x25.ndjson.gz"
SPLITS = ("train", "val", "test")
SHARES = 0.8, 0.88  # of a class's drawings, in the order of their keys: up to here train, up to here val


class QuickDraw(SketchDataModule):
    """`data=quickdraw`: of 344 classes 25 drawings each: 20 train, 2 validate, 3 test, in the order of their keys.

    Args:
        folder: where data files lie, `paths.data`.
        path: a file or folder of `.ndjson`, `.ndjson.gz` or `.npz` files as published, a class each, in its place;
            None: the 344 classes. An npz has its own splits.
        others: see `SketchDataModule`.

    Source: Google, The Quick, Draw! Dataset, CC BY 4.0.

    Raises:
        UsageError: the file is not there, or holds something else.
    """

    def __init__(self, folder: str, path: str | None = None, **others: Any):
        super().__init__(**others)
        self.folder = Path(str(folder)).expanduser().absolute()
        self.path = Path(str(path or self.folder / FILE)).expanduser().absolute()

    @property
    def source(self) -> str:
        return f"{self.path.name}, {len(self.names)} classes, {len(self.splits['train'].labels):,} training drawings"

    def load_drawings(self) -> tuple[dict[str, Drawings], tuple[str, ...]]:
        found: dict[str, dict[str, list[tuple[np.ndarray, bool]]]] = {}  # by class and split
        for file in self.files():
            if file.suffix == ".npz":
                own = {split: [(strokes, True) for strokes in part] for split, part in read_npz(file).items()}
                found[file.stem] = own
            else:
                found |= divided(file)
        for name, own in found.items():
            if not all(own.values()):
                counts = ", ".join(f"{len(part)} to {split}" for split, part in own.items())
                raise UsageError(f"The class '{name}' has too few drawings for three splits ({counts}): leave it out.")
        names = tuple(sorted(found))
        splits = {}
        for split in SPLITS:
            parts = [(strokes, label, clear) for label, n in enumerate(names) for strokes, clear in found[n][split]]
            splits[split] = drawings(*map(list, zip(*parts, strict=True)))
        return splits, names

    def files(self) -> list[Path]:
        """The file, or all of the folder's that can be read."""
        if self.path.is_file():
            return [self.path]
        kinds = (".npz", ".ndjson", ".ndjson.gz")
        found = sorted(file for file in self.path.glob("*") if file.name.endswith(kinds)) if self.path.is_dir() else []
        if not found:
            raise UsageError(
                f"There are no drawings at {self.path} (a file or folder of {', '.join(kinds)}): set paths.data=FOLDER "
                "or data.path=…, or take data=doodles, which needs no download."
            )
        return found


def divided(file: Path) -> dict[str, dict[str, list[tuple[np.ndarray, bool]]]]:
    """Of each word of an ndjson file the drawings of each split, and whether the game recognised them."""
    words: dict[str, list[tuple[int, np.ndarray, bool]]] = {}
    for entry in read_ndjson(file):
        words.setdefault(entry["word"], []).append((int(entry["key_id"]), entry["drawing"], entry["recognized"]))
    found = {}
    for word, entries in words.items():
        entries.sort(key=lambda entry: entry[0])
        first, second = (round(len(entries) * share) for share in SHARES)
        parts = entries[:first], entries[first:second], entries[second:]
        found[word] = {n: [entry[1:] for entry in part] for n, part in zip(SPLITS, parts, strict=True)}
    return found
