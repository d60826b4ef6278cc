"""The local files of CIFAR-10 in their usual forms: Hugging Face parquet, Python batches, binary batches."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import UsageError
from datamodules.sources import Source, decode_table, hashes, require

SHAPE = (3, 32, 32)
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
STEMS = {"train": "train", "test": "test"}
RECORD_BYTES = 1 + 3 * 32 * 32
PICKLE_NAMES = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct",),
    "numpy._core.multiarray": ("_reconstruct",),
    "_codecs": ("encode",),
}


def local_source(path: Path) -> Source | None:
    """The first form found in `path/cifar10` or `path`: parquet, Python batches, binary batches; None without any.

    Raises:
        UsageError: a form is there but not all of it.
    """
    roots = (path / "cifar10", path)
    for root in roots:
        for folder in (root, root / "plain_text"):
            if files := find_shards(folder):
                return _file_source("parquet", files, read_parquet)
    for form, suffix, read in (("py", "", read_python_batch), ("bin", ".bin", read_binary_batch)):
        for root in roots:
            if (folder := root / f"cifar-10-batches-{form}").is_dir():
                files = {split: [folder / f"{name}{suffix}" for name in names] for split, names in BATCHES.items()}
                missing = [file.name for split in files.values() for file in split if not file.exists()]
                require("CIFAR-10", folder, missing)
                return _file_source(form, files, read)
    return None


def _file_source(form: str, files: dict[str, list[Path]], read: Callable[[Path], Any]) -> Source:
    key = {"form": form, "files": hashes([file for split in files.values() for file in split])}
    return Source(key, {split: {str(file): file for file in some} for split, some in files.items()}, read)


def find_shards(
    folder: Path, title: str = "CIFAR-10", stems: Mapping[str, str] = STEMS
) -> dict[str, list[Path]] | None:
    """The parquet files of each split in `folder`, named by `stems`, in order; None when it has none.

    Raises:
        UsageError: of a set `train-00000-of-00003.parquet` … one is missing, or files of two sets are mixed.
    """
    files = {split: sorted(folder.glob(f"{stem}-*.parquet")) for split, stem in stems.items()}
    if not any(files.values()):
        return None
    for split, shards in files.items():
        total = next((match[1] for shard in shards if (match := re.search(r"-\d{5}-of-(\d{5})", shard.name))), None)
        stem = stems[split]
        expected = [f"{stem}-{number:05d}-of-{total}" for number in range(int(total))] if total else [f"{stem}-"]
        missing = [f"{start}*.parquet" for start in expected if not any(s.name.startswith(start) for s in shards)]
        require(title, folder, missing)
        if total and len(shards) != len(expected):
            raise UsageError(f"{folder} mixes {split} files of several sets: keep those of one.")
    return files


def read_parquet(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels of a parquet file with the columns `img` or `image`, and `label`."""
    import pyarrow.parquet as pq

    # A ParquetFile, because read_table would take folder names like a=b for columns.
    return decode_table(pq.ParquetFile(file).read(), file.name, SHAPE, CLASS_NAMES)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what numpy arrays are made of and nothing else, so that a file from someone else runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in PICKLE_NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return super().find_class(module, name)


def read_python_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dict with `data` uint8 (N, 3072), the planes R, G, B of each image, and the list `labels`."""
    with open(file, "rb") as opened:
        batch = _ArraysOnly(opened, encoding="latin1").load()  # latin1: numpy's way to read arrays from Python 2
    return batch["data"].reshape(-1, 3, 32, 32), np.asarray(batch["labels"])


def read_binary_batch(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of 3,073 bytes: the label, then the planes R, G, B."""
    records = np.fromfile(file, np.uint8)
    if len(records) % RECORD_BYTES:
        raise ValueError(f"its {len(records)} bytes are not whole records of {RECORD_BYTES}")
    records = records.reshape(-1, RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
