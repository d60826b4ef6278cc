"""CIFAR-10: 60,000 photographs, 32×32 RGB, ten classes; from local files in any usual form, or the Hugging Face Hub."""

from __future__ import annotations

import json
import pickle
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from datamodules.cache import cached_arrays, file_sha256
from datamodules.errors import UsageError
from datamodules.image import ImageDataModule, Split, cut_validation
from datamodules.spec import ImageSpec

if TYPE_CHECKING:
    import pyarrow as pa

CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUB_NAME = "uoft-cs/cifar10"
SPLIT_SEED = 0
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
RECORD_BYTES = 1 + 3 * 32 * 32
PICKLE_NAMES = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct",),
    "numpy._core.multiarray": ("_reconstruct",),
    "_codecs": ("encode",),
}


class CIFAR10(ImageDataModule):
    """`data=cifar10`: the 10,000 published test images test, `val_items` of the 50,000 others validate, the rest train.

    Args:
        path: the folder looked in, `paths.data`; then the Hub is asked.
        cache: the folder for the decoded arrays (180 MB), `paths.cache`.
        val_items: validation images, the same ones in every run.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        val_items: int = 5000,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.val_items = val_items

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, height=32, width=32, levels=256, classes=10)

    @property
    def class_names(self) -> list[str]:
        return list(CLASS_NAMES)

    def load_splits(self) -> dict[str, Split]:
        source = local_source(self.path) or hub_source(self.path)
        arrays = cached_arrays(self.cache, "cifar10", source.key, lambda: read_source(source))
        given, test = (Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test"))
        train, val = cut_validation(given, self.val_items, SPLIT_SEED)
        return {"train": train, "val": val, "test": test}


class Source(NamedTuple):
    """Where the images come from: `key` tells one source from another; `parts` of each split, by name, go to `read`."""

    key: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    read: Callable[[Any], tuple[np.ndarray, np.ndarray]]


def read_source(source: Source) -> dict[str, np.ndarray]:
    """`{train,test}_images` uint8 (N, 3, 32, 32) and `{train,test}_labels` int64 (N,).

    Raises:
        UsageError: a part is damaged or holds something else; the message names it.
    """
    arrays = {}
    for split, parts in source.parts.items():
        pieces = []
        for name, part in parts.items():
            try:
                images, labels = source.read(part)
                if images.shape != (len(labels), 3, 32, 32) or images.dtype != np.uint8 or not len(labels):
                    raise ValueError(f"images {images.shape} of {images.dtype} for {len(labels)} labels")
                if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
                    raise ValueError("labels other than 0 to 9")
            except Exception as error:  # a damaged file makes its parser raise almost anything
                raise UsageError(f"{name} is damaged or not CIFAR-10 ({_reason(error)}).") from error
            pieces.append((images, labels.astype(np.int64)))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = map(np.concatenate, zip(*pieces, strict=True))
    return arrays


def _reason(error: Exception) -> str:
    """The first line of what an exception says, to stand inside a sentence."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


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
                _require(folder, [file.name for split in files.values() for file in split if not file.exists()])
                return _file_source(form, files, read)
    return None


def _file_source(form: str, files: dict[str, list[Path]], read: Callable[[Path], Any]) -> Source:
    try:
        hashes = {file.name: file_sha256(file) for split in files.values() for file in split}
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror}).") from error
    parts = {split: {str(file): file for file in some} for split, some in files.items()}
    return Source({"form": form, "files": hashes}, parts, read)


def _require(folder: Path, missing: list[str]) -> None:
    if missing:
        raise UsageError(f"CIFAR-10 in {folder} is not complete: missing {', '.join(missing)}.")


def find_shards(folder: Path) -> dict[str, list[Path]] | None:
    """The parquet files of each split in `folder`, in order; None when it has none.

    Raises:
        UsageError: of a set `train-00000-of-00003.parquet` … one is missing, or files of two sets are mixed.
    """
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in BATCHES}
    if not any(files.values()):
        return None
    for split, shards in files.items():
        total = next((match[1] for shard in shards if (match := re.search(r"-\d{5}-of-(\d{5})", shard.name))), None)
        expected = [f"{split}-{number:05d}-of-{total}" for number in range(int(total))] if total else [f"{split}-"]
        missing = [f"{start}*.parquet" for start in expected if not any(s.name.startswith(start) for s in shards)]
        _require(folder, missing)
        if total and len(shards) != len(expected):
            raise UsageError(f"{folder} mixes {split} files of several sets: keep those of one.")
    return files


def read_parquet(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels of a parquet file with the columns `img` or `image`, and `label`."""
    import pyarrow.parquet as pq

    # A ParquetFile, because read_table would take folder names like a=b for columns.
    return decode_table(pq.ParquetFile(file).read(), file.name)


def decode_table(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels of a table whose image column is struct{bytes: a PNG, path}."""
    import pyarrow.compute as pc
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    if features.get("label", {}).get("names", CLASS_NAMES) != CLASS_NAMES:
        raise ValueError(f"its classes are {', '.join(features['label']['names'][:3])} …")
    column = next((column for column in table.column_names if column in ("img", "image")), "img")
    pngs = pc.struct_field(table[column], "bytes").to_pylist()
    images = np.empty((len(pngs), 32, 32, 3), np.uint8)
    progress = {"console": Console(stderr=True), "disable": not sys.stderr.isatty(), "transient": True}
    for row, png in enumerate(track(pngs, f"Decoding {name}", **progress)):
        with Image.open(BytesIO(png)) as image:
            if (image.mode, image.size) != ("RGB", (32, 32)):
                raise ValueError(f"image {row} is {image.mode} {image.width}×{image.height}, not RGB 32×32")
            images[row] = image
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), table["label"].to_numpy()


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


def hub_source(path: Path) -> Source:
    """The Hub's copy: downloaded, or without a connection the one downloaded before.

    Raises:
        UsageError: neither; after `path`, this was the last place to look.
    """
    import datasets

    # Told that it is offline, the library serves an earlier download or fails at once; else it tries for half a minute.
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or not _answers(datasets.config.HF_ENDPOINT)
    try:
        splits = datasets.load_dataset(HUB_NAME)
    except Exception as error:  # of the connection, the Hub, its cache on disk: all mean no data
        cut_off = "offline mode is set" if offline else "no connection"
        raise UsageError(
            f"CIFAR-10 was not found as train-*.parquet and test-*.parquet, cifar-10-batches-py or "
            f"cifar-10-batches-bin in {path} or {path / 'cifar10'}, nor as {HUB_NAME} on the Hugging Face Hub "
            f"({cut_off if datasets.config.HF_HUB_OFFLINE else _reason(error)}): set paths.data=FOLDER or "
            f"ETUDES_DATA=FOLDER to where it is, or take data=digits, which needs no download."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    splits = {split: splits[split] for split in BATCHES}
    key = {"form": HUB_NAME, "fingerprints": {split: data._fingerprint for split, data in splits.items()}}
    parts = {split: {f"{HUB_NAME} {split}": data} for split, data in splits.items()}
    return Source(key, parts, lambda data: decode_table(data.with_format("arrow")[:], HUB_NAME))


def _answers(endpoint: str, seconds: float = 3.0) -> bool:
    """Whether the server, or the proxy that stands before it, takes connections."""
    target = getproxies().get("https") or endpoint
    address = urlsplit(target if "://" in target else f"//{target}")
    answers = []

    def knock() -> None:
        with suppress(OSError), socket.create_connection((address.hostname, address.port or 443), seconds):
            answers.append(True)

    # In a thread, because looking the name up knows no time limit.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)
