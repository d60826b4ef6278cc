"""A series of one's own: a CSV file with a column of dates and columns of numbers."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.series.windows import Series, SeriesDataModule

MOST_ROWS = 10_000_000  # after missing steps are filled in
MISSING = ("", "na", "nan", "null", "?")


class Table(SeriesDataModule):
    """`data=series data.path=my.csv data.target=sales`: the first line names the columns; a row a step.

    Steps that are not there become missing values: the rows must be in order, each a whole multiple of the commonest
    step after the one before. An empty cell is a missing value. The first 60 % of the rows train, the next 20 %
    validate, the rest test.

    Args:
        path: the file.
        date: the column of dates, as 2024-03-31 or 2024-03-31 14:00:00; None: the first.
        period: steps of a season, 24 for a day of hours.
        parts: shares of the rows that train, validate and test.
        others: see `SeriesDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        date: str | None = None,
        period: int = 24,
        parts: Sequence[float] = (0.6, 0.2, 0.2),
        **how: object,
    ):
        super().__init__(**how)
        if path is None:
            raise UsageError("data=series needs a file: give data.path=FILE, a CSV with a column of dates.")
        if not isinstance(period, int) or isinstance(period, bool) or period < 1:
            raise UsageError(f"data.period is {period!r}, but it must be a whole number of steps, 1 or more.")
        shares = list(parts) if isinstance(parts, Sequence) and not isinstance(parts, str) else []
        fine = all(isinstance(share, (int, float)) and 0 < share < 1 for share in shares)
        if len(shares) != 3 or not fine or abs(sum(shares) - 1) > 1e-6:
            raise UsageError(f"data.parts is {parts!r}, but it must be three shares whose sum is 1: [0.6,0.2,0.2].")
        self.path, self.date, self.period, self.parts = Path(str(path)).expanduser(), date, period, shares

    @property
    def title(self) -> str:
        return f"'{self.path}'"

    def read(self) -> Series:
        values, channels, dates = read_table(self.path, self.date)
        values = at_equal_steps(values, dates, self.path)
        ends = [round(len(values) * share) for share in np.cumsum(self.parts)]
        return Series(values, channels, tuple(ends), self.period)


def read_table(path: Path, date: str | None) -> tuple[np.ndarray, tuple[str, ...], dict[int, datetime]]:
    """Numbers (rows, columns), NaN where a cell is empty; the columns' names; the date of each row by its number in the
    file, where empty rows count too.

    Raises:
        UsageError: it cannot be read, or a cell is no number or no date; the message names row and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), start=1) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is no CSV file in UTF-8"
        raise UsageError(f"'{path}' cannot be read ({why}): give data.path=FILE, a CSV file.") from error
    if len(lines) < 3 or len(lines[0][1]) < 2:
        raise UsageError(f"'{path}' holds no series: a line of names, dates and numbers in columns, rows are needed.")
    names = [name.strip() for name in lines[0][1]]
    if len(set(names)) < len(names):
        raise UsageError(f"'{path}' names a column twice: give each a name of its own.")
    if date is not None and date not in names:
        raise UsageError(
            f"'{path}' has no column {date!r}{did_you_mean(str(date), names)} for its dates: its columns are "
            f"{', '.join(names)}."
        )
    place = 0 if date is None else names.index(date)
    dates, numbers = {}, np.empty((len(lines) - 1, len(names)))
    for own, (row, cells) in zip(numbers, lines[1:], strict=True):
        if len(cells) != len(names):
            raise UsageError(f"'{path}' has {len(cells)} cells in row {row}, but {len(names)} columns: mend the row.")
        dates[row] = as_date(cells[place], path, row)
        for column, cell in enumerate(cells):
            own[column] = 0.0 if column == place else as_number(cell, path, row, names[column])
    kept = [column for column in range(len(names)) if column != place]
    return numbers[:, kept], tuple(names[column] for column in kept), dates


def as_date(cell: str, path: Path, row: int) -> datetime:
    try:
        found = datetime.fromisoformat(cell.strip())
    except ValueError as error:
        raise UsageError(
            f"'{path}' has {cell[:40]!r} for a date in row {row}: write dates as 2024-03-31 or 2024-03-31 14:00:00."
        ) from error
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found  # summer time makes no jump


def as_number(cell: str, path: Path, row: int, column: str) -> float:
    if cell.strip().lower() in MISSING:
        return math.nan
    try:
        found = float(cell)
    except ValueError:
        found = math.inf
    if not math.isfinite(found) or abs(found) > 1e30:
        raise UsageError(f"'{path}' has {cell[:40]!r} in row {row}, column {column!r}, where a number is needed.")
    return found


def at_equal_steps(values: np.ndarray, dates: Mapping[int, datetime], path: Path) -> np.ndarray:
    """The rows at equal steps, the commonest there is; rows of NaN for those that are not there.

    Raises:
        UsageError: a date does not come after the one before, or not by a whole number of steps.
    """
    gaps = {row: dates[row] - dates[before] for before, row in pairwise(dates)}
    for row, gap in gaps.items():
        if gap <= timedelta(0):
            raise UsageError(f"'{path}' goes back in time in row {row} ({dates[row]}): sort it by date.")
    step = Counter(gaps.values()).most_common(1)[0][0]
    places = [0]
    for row, gap in gaps.items():
        if gap % step:
            raise UsageError(
                f"'{path}' has a step of {gap} in row {row} ({dates[row]}), which is no whole multiple of the "
                f"commonest, {step}: bring it to equal steps."
            )
        places.append(places[-1] + gap // step)
    if places[-1] >= MOST_ROWS:
        raise UsageError(f"'{path}' would have {places[-1]:,} steps of {step}: its dates leave too much out.")
    found = np.full((places[-1] + 1, values.shape[1]), np.nan)
    found[places] = values
    return found
