"""The rows of `benchmarks/gpu.yaml`: which of them a device runs, in what order, side by side."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import UsageError

MOST = 5  # minutes of a row
AT_ONCE = 4  # rows side by side: more would wait for one another
KINDS = {"minutes": (int, float), "memory": (int, float), "weights": bool, "data": list, "packages": list,
         "figures": list}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A run; see the file's first comment. `memory` in GiB."""

    command: str
    minutes: float
    name: str
    data: tuple[str, ...] = ()
    memory: float = 10.0
    packages: tuple[str, ...] = ()
    after: str | None = None
    figures: tuple[str, ...] = ()
    weights: bool = False


def read_rows(path: Path) -> list[Row]:
    """The file's rows.

    Raises:
        UsageError: one is not what a row must be.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"'{path}' cannot be read as a list of rows.") from error
    rows = [row_of(entry, path) for entry in (found if isinstance(found, list) else [found])]
    names = [row.name for row in rows]
    for number, row in enumerate(rows):
        if row.name in names[:number]:
            raise UsageError(f"'{path}' has two rows of the name {row.name}.")
        if row.after is not None and row.after not in names[:number]:
            raise UsageError(f"'{path}': {row.name} goes on from {row.after}, which is no row before it.")
    return rows


def row_of(entry: Any, path: Path) -> Row:
    known = {field.name for field in fields(Row)}
    if not isinstance(entry, dict) or not {"command", "minutes", "name"} <= entry.keys() <= known:
        raise UsageError(f"'{path}' has {entry!r}, but a row has command, minutes and name, and may have others of "
                         f"{', '.join(sorted(known))}.")  # fmt: skip
    for key, value in entry.items():
        if not isinstance(value, KINDS.get(key, str)):
            raise UsageError(f"'{path}': {key} of {entry['name']} is {value!r}.")
    if not 0 < entry["minutes"] <= MOST:
        raise UsageError(f"'{path}': {entry['name']} takes {entry['minutes']} minutes, but a row takes {MOST} at most: "
                         "cut it into pieces that go on from their plateau (after).")  # fmt: skip
    return Row(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def ordered(rows: Sequence[Row], is_kept: Callable[[str], bool], has_plateau: Callable[[str], bool]) -> list[Row]:
    """The rows with those last whose results are kept; not those that a row whose are not goes on from, if need be."""
    needed = {row.after for row in rows if row.after and not is_kept(row.name) and not has_plateau(row.after)}
    last = [row for row in rows if is_kept(row.name) and row.name not in needed]
    return [row for row in rows if row not in last] + last


def lacks(row: Row, memory: float, prepare: Callable[[Row], None]) -> str | None:
    """Why a row cannot run here, in a few words; None where it can.

    Args:
        row: that is asked for.
        memory: of the device, GiB.
        prepare: the row's data; raises UsageError where they are missing.
    """
    if missing := [name for name in row.packages if find_spec(name) is None]:
        return f"{', '.join(missing)} not installed"
    if row.memory > memory:
        return f"it takes {row.memory:g} GiB, and the device has {memory:.0f}"
    try:
        prepare(row)
    except UsageError as error:
        return f"no {' or '.join(row.data)}: {error}" if row.data else str(error)
    return None


def startable(
    waiting: Sequence[Row], running: Sequence[Row], memory: float, seconds: float, is_ready: Callable[[Row], bool]
) -> list[Row]:
    """The rows to start now, in order: those that fit beside what runs, and into the time.

    Args:
        waiting, running: rows.
        memory: of the device, GiB.
        seconds: that are left.
        is_ready: is there what the row goes on from?
    """
    free, places = memory - sum(row.memory for row in running), AT_ONCE - len(running)
    chosen: list[Row] = []
    for row in waiting:
        fits = row.memory <= free and 60 * row.minutes <= seconds
        if len(chosen) < places and fits and is_ready(row):
            chosen.append(row)
            free -= row.memory
    return chosen


def words_of(row: Row, folder: Path, plateau: Path | None) -> list[str]:
    """The words after `train.py`: a run in `folder`, or one that goes on from `plateau` in its own."""
    place = f"hydra.run.dir={folder}" if plateau is None else f"ckpt_path={plateau}"
    return [*shlex.split(row.command), place]
