"""Where a published data set comes from: local files or the Hugging Face Hub, read the same way and checked."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from datamodules.cache import file_sha256
from datamodules.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class Source(NamedTuple):
    """Where the images come from: `key` tells one source from another; `parts` of each split, by name, go to `read`."""

    key: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    read: Callable[[Any], tuple[np.ndarray, np.ndarray]]


def read_source(source: Source, title: str, shape: tuple[int, int, int], classes: int) -> dict[str, np.ndarray]:
    """Of each split `{split}_images` uint8 (N, *shape) and `{split}_labels` int64 (N,), 0 … classes−1.

    Raises:
        UsageError: a part is damaged or holds something else; the message names it and the data set's `title`.
    """
    arrays = {}
    for split, parts in source.parts.items():
        pieces = []
        for name, part in parts.items():
            with damage_named(name, title):
                images, labels = source.read(part)
                if images.shape != (len(labels), *shape) or images.dtype != np.uint8 or not len(labels):
                    raise ValueError(f"images {images.shape} of {images.dtype} for {len(labels)} labels")
                if labels.dtype.kind not in "iu":
                    raise ValueError(f"labels of {labels.dtype}")
                if len(wrong := np.flatnonzero((labels < 0) | (labels >= classes))):
                    raise ValueError(f"row {wrong[0]} has the label {labels[wrong[0]]}, not one of 0 to {classes - 1}")
            pieces.append((images, labels.astype(np.int64)))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = map(np.concatenate, zip(*pieces, strict=True))
    return arrays


@contextmanager
def damage_named(name: object, title: str) -> Iterator[None]:
    """Turns whatever a damaged file makes its parser raise, which may be almost anything, into a sentence."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{name} is damaged or not {title} ({_reason(error)}): fetch it anew, or give another folder as paths.data."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what an exception says, to stand inside a sentence."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def hashes(files: list[Path]) -> dict[str, str]:
    """The sha256 of each file, by its name: the key of what is decoded from them.

    Raises:
        UsageError: one cannot be read.
    """
    try:
        return {file.name: file_sha256(file) for file in files}
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror}).") from error


def require(title: str, folder: Path, missing: list[str]) -> None:
    """Raises UsageError when something is missing from a data set's folder."""
    if missing:
        raise UsageError(f"{title} in {folder} is not complete: missing {', '.join(missing)}.")


def hub_source(
    name: str,
    title: str,
    looked_for: str,
    shape: tuple[int, int, int],
    class_names: list[str],
    label: str = "label",
    instead: str = "digits",
) -> Source:
    """The splits train and test of the Hub's data set `name`: downloaded, or without a connection the earlier download.

    Args:
        title, looked_for: the data set, and the local files already looked for and where; for the message.
        instead: data that needs no download; for the message.

    Raises:
        UsageError: neither; this was the last place to look.
    """
    import datasets

    # Told that it is offline, the library serves an earlier download or fails at once; else it tries for half a minute.
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or not _answers(datasets.config.HF_ENDPOINT)
    try:
        given = datasets.load_dataset(name)
    except Exception as error:  # of the connection, the Hub, its cache on disk: all mean no data
        cut_off = "offline mode is set" if offline else "no connection"
        raise UsageError(
            f"{title} was not found as {looked_for}, nor as {name} on the Hugging Face Hub "
            f"({cut_off if datasets.config.HF_HUB_OFFLINE else _reason(error)}): set paths.data=FOLDER or "
            f"ETUDES_DATA=FOLDER to where it is, or take data={instead}, which needs no download."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    splits = {split: given[split] for split in ("train", "test")}
    key = {"form": name, "fingerprints": {split: data._fingerprint for split, data in splits.items()}}
    parts = {split: {f"{name} {split}": data} for split, data in splits.items()}
    return Source(key, parts, lambda data: decode_table(data.with_format("arrow")[:], name, shape, class_names, label))


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


def decode_table(
    table: pa.Table, name: str, shape: tuple[int, int, int], class_names: list[str], label: str = "label"
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, *shape) and labels of a table with `img` or `image`, struct{bytes: PNG or WebP, path}, and `label`."""
    import pyarrow.compute as pc
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    if features.get(label, {}).get("names", class_names) != class_names:
        raise ValueError(f"its classes are {', '.join(features[label]['names'][:3])} …")
    column = next((column for column in table.column_names if column in ("img", "image")), "img")
    pngs = pc.struct_field(table[column], "bytes").to_pylist()
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    images = np.empty((len(pngs), height, width, channels), np.uint8)
    progress = {"console": Console(stderr=True), "disable": not sys.stderr.isatty(), "transient": True}
    for row, png in enumerate(track(pngs, f"Decoding {name}", **progress)):
        try:
            with Image.open(BytesIO(png or b"")) as image:
                found, pixels = f"{image.mode} {image.width}×{image.height}", np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"row {row} holds no whole image") from error
        if found != f"{mode} {width}×{height}":
            raise ValueError(f"image {row} is {found}, not {mode} {width}×{height}")
        images[row] = pixels.reshape(height, width, channels)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), table[label].to_numpy()
