"""Files that appear whole or not at all, and a sentence where they cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.errors import UsageError

# What the machine refuses, whatever the program does: room, rights, a file where a folder should be.
REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write to, with the same ending; it takes the name `path` once it is on the disk.

    The folder is made if need be. Whatever goes wrong, `path` stays as it was, and nothing is left beside it but by a
    killed process.

    Raises:
        UsageError: the disk is full, or the folder cannot be written.
    """
    unfinished = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(cannot_be_written(error, path)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def cannot_be_written(error: OSError, path: Path | str | None = None) -> str:
    """What an error of the disk means, in one sentence."""
    # numpy reports a short write as an OSError without a number.
    reason = error.strerror or "the disk may be full"
    return (
        f"'{path or error.filename}' cannot be written ({reason}): make room or choose another place; what was there "
        "before is whole, and ckpt_path=RUN goes on from a run's last checkpoint."
    )
