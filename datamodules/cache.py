"""A checked cache of named arrays: decoded once, memory-mapped ever after, never trusted unread.

On disk:
    <folder>/<name>-<hash of the key>/    one .npy file per array
                                          manifest.json: the key, and of each file its sha256 and bytes
    <folder>/<name>-<hash of the key>.lock
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from datamodules.errors import UsageError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class _Damaged(Exception):
    """The cache is not what was written: the message names the file and what is wrong with it."""


def cached_arrays(
    folder: Path, name: str, key: dict[str, Any], build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that `build` makes, as read-only memory maps; built only where no whole copy is kept.

    Args:
        folder: where caches live; made if need be.
        name: the file name's first part, for people.
        key: all that the arrays depend on, in plain JSON values; another key is another cache.
        build: makes the arrays, by name; one of several processes calls it while the others wait.

    Raises:
        UsageError: the cache cannot be written; what `build` raises passes through.
    """
    place = folder / f"{name}-{hashlib.sha256(_canonical(key).encode()).hexdigest()[:16]}"
    # A whole cache needs no lock, so that one on a read-only disk serves too. Any doubt is settled under the lock.
    with suppress(_Damaged):
        return _open(place, key)
    with ExitStack() as stack:
        with _writing(place):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{place}.lock"))
        if place.exists():
            try:
                return _open(place, key)
            except _Damaged as damage:
                log.warning("The cache %s is damaged (%s): it is built again from its source.", place, damage)
        arrays = build()
        with _writing(place):
            _write(place, key, arrays)
        return _open(place, key)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(key: Any) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turns a full disk or an unwritable folder into a sentence."""
    try:
        yield
    except OSError as error:
        # numpy reports a short write as an OSError without a number.
        reason = error.strerror or "the disk may be full"
        raise UsageError(
            f"The cache {place} cannot be written ({reason}): set paths.cache=FOLDER to a folder with room in it."
        ) from error


def _write(place: Path, key: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes beside `place` and renames, so that `place` is always whole. The caller holds the lock."""
    beside = place.with_name(f"{place.name}.tmp")
    for old in (beside, place):  # what a killed build left; a damaged cache
        if old.exists():
            shutil.rmtree(old)
    try:
        beside.mkdir()
        files = {}
        for name, array in arrays.items():
            file = beside / f"{name}.npy"
            np.save(file, array, allow_pickle=False)
            files[file.name] = {"sha256": file_sha256(file), "bytes": file.stat().st_size}
        (beside / MANIFEST).write_text(json.dumps({"key": key, "files": files}, indent=2) + "\n")
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _open(place: Path, key: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a cache whose every byte is as written.

    Raises:
        _Damaged: it is not there, or not whole.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        if _canonical(manifest["key"]) != _canonical(key):
            raise _Damaged(f"{MANIFEST} is of another source")
        recorded = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        for name in sorted(recorded.keys() ^ {file.name for file in place.glob("*.npy")}):
            raise _Damaged(f"{name} is missing there or in {MANIFEST}")
        for name, (size, digest) in recorded.items():
            if (found := (place / name).stat().st_size) != size:
                raise _Damaged(f"{name} has {found} bytes instead of {size}")
            if file_sha256(place / name) != digest:
                raise _Damaged(f"the content of {name} was altered")
        return {Path(name).stem: np.load(place / name, mmap_mode="r") for name in recorded}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(f"{MANIFEST} or a file it names cannot be read: {error}") from error
