"""predictions.npz: what a run's test left of each item, for reports and comparisons."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from datamodules.errors import UsageError
from datamodules.files import whole_file

LENGTHS = "_lengths"  # of an array whose items differ in length; beside it all items' rows one after the other
Arrays = Mapping[str, np.ndarray | list[np.ndarray]]


def write_predictions(folder: Path, arrays: Arrays, name: str = "predictions.npz") -> None:
    """Writes arrays of one row for each item, or lists of one array for each where items differ in length."""
    with whole_file(folder / name) as unfinished:
        np.savez_compressed(unfinished, **packed(arrays))


def read_predictions(folder: Path, name: str = "predictions.npz") -> dict[str, np.ndarray | list[np.ndarray]]:
    """What `write_predictions` was given; nothing in the file can run code.

    Raises:
        UsageError: it is damaged, or holds Python objects.
    """
    path = folder / name
    try:
        with np.load(path, allow_pickle=False) as loaded:
            return unpacked(dict(loaded))
    except (ValueError, OSError, BadZipFile, EOFError, zlib.error, KeyError, AttributeError, RuntimeError) as error:
        raise UsageError(f"'{path}' is damaged, or no file of predictions: test the run anew.") from error


def packed(arrays: Arrays) -> dict[str, np.ndarray]:
    """Each list as two arrays: all its rows, and how many each item has."""
    found = {}
    for name, value in arrays.items():
        found[name] = value
        if isinstance(value, list):
            found[name] = np.concatenate(value) if value else np.empty(0)
            found[name + LENGTHS] = np.array([len(item) for item in value], np.int64)
    return found


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | list[np.ndarray]]:
    """What `packed` was given."""
    found: dict[str, np.ndarray | list[np.ndarray]] = {}
    for name, value in arrays.items():
        if name + LENGTHS in arrays:
            ends = np.cumsum(arrays[name + LENGTHS])
            if len(ends) and ends[-1] != len(value):
                raise ValueError(f"{name} has {len(value)} rows, not {ends[-1]}")
            found[name] = np.split(value, ends[:-1]) if len(ends) else []
        elif not (name.endswith(LENGTHS) and name.removesuffix(LENGTHS) in arrays):
            found[name] = value
    return found
