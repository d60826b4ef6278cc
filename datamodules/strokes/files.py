"""Files of drawings: Quick, Draw!'s ndjson, sketch-rnn's npz, and one drawing as JSON."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import UsageError
from datamodules.sources import damage_named
from datamodules.strokes.forms import Polylines, Strokes, checked, from_polylines

SPLITS = {"train": "train", "valid": "val", "test": "test"}  # of an npz, and their names here
ARRAYS = {"_reconstruct", "ndarray", "dtype", "scalar"}  # all of NumPy that an array of arrays needs


class ArraysOnly(pickle.Unpickler):
    """Reads pickled NumPy arrays, and refuses whatever else a pickle could call."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ARRAYS:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def read_npz(path: Path) -> dict[str, list[Strokes]]:
    """The drawings of each split, train, val and test, of a file as sketch-rnn publishes them; nothing in it can run
    code.

    Raises:
        UsageError: it cannot be read, needs more than arrays, or holds what is no drawing.
    """
    with damage_named(path, "a sketch-rnn npz of drawings"), zipfile.ZipFile(path) as archive:
        read = {split: read_objects(archive.read(f"{name}.npy")) for name, split in SPLITS.items()}
    return {
        split: [checked(drawing, f"{path}: drawing {number} of {split}") for number, drawing in enumerate(drawings)]
        for split, drawings in read.items()
    }


def read_objects(content: bytes) -> np.ndarray:
    """An array of objects, which NumPy would unpickle without a look at them."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(file)
    if not kind.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    return ArraysOnly(file, encoding="latin1").load().reshape(shape)


def read_ndjson(path: Path) -> Iterator[dict[str, Any]]:
    """Each line's `word`, `key_id`, `recognized` and `drawing` as stroke-3, of plain or gzipped ndjson.

    Raises:
        UsageError: a line is not one of Quick, Draw!'s simplified drawings.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with damage_named(path, "ndjson of Quick, Draw!"), opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            name = f"{path}: line {number}"
            with damage_named(name, "a drawing of Quick, Draw!"):
                entry = json.loads(line)
                lines = [np.column_stack([stroke[0], stroke[1]]) for stroke in entry["drawing"]]
                strokes = checked(from_polylines(lines), name)
                yield {"word": str(entry["word"]), "key_id": str(entry["key_id"]),
                       "recognized": bool(entry["recognized"]), "drawing": strokes}  # fmt: skip


def read_drawing(path: Path) -> Strokes:
    """One drawing of a JSON file: a list of strokes, each [[x …], [y …]], as Quick, Draw! writes them, alone or under
    "drawing".

    Raises:
        UsageError: there is no such file, or no drawing of two points or more in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"sketch: '{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UsageError(f"sketch: '{path}' is no JSON ({error}).") from error
    strokes = content.get("drawing") if isinstance(content, dict) else content
    form = "a list of strokes, each [[x …], [y …]] of as many numbers"
    try:
        lines = [np.array([stroke[0], stroke[1]], np.float64).T for stroke in strokes]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise UsageError(f"sketch: '{path}' holds no drawing: it must be {form}.") from error
    lines = [line for line in lines if len(line)]
    points = sum(map(len, lines))
    if points < 2:
        raise UsageError(f"sketch: '{path}' has {points} points, but a drawing to go on from needs two or more.")
    if any(line.ndim != 2 for line in lines):
        raise UsageError(f"sketch: '{path}' holds no drawing: it must be {form}.")
    return checked(from_polylines(lines), f"sketch: '{path}'")


def as_json(polylines: Polylines) -> list[list[list[float]]]:
    """Strokes as Quick, Draw! writes them: [[x …], [y …]] of each."""
    return [[[round(float(value), 2) for value in axis] for axis in line.T] for line in polylines]
