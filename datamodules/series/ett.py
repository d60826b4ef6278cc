"""ETTh1: hourly load and oil temperature of an electricity transformer, July 2016 to June 2018, seven channels."""

from __future__ import annotations

from pathlib import Path

from datamodules.errors import UsageError
from datamodules.series.table import read_table
from datamodules.series.windows import Series, SeriesDataModule

NAME, ROWS = "ETTh1.csv", 17_420
MONTH = 30 * 24  # hours
ENDS = (12 * MONTH, 16 * MONTH, 20 * MONTH)
CHANNELS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
FOLDERS = ("ett", "ETT-small", "ETT", ".")


class ETT(SeriesDataModule):
    """`data=ett`: the literature's split: 12 months of 30 days train, 4 validate, 4 test; the last 3,020 of the 17,420
    rows are not used.

    The file is looked for as `ett/ETTh1.csv` (or in `ETT-small/`) under `path`.

    Args:
        path: `paths.data`.
        others: see `SeriesDataModule`; OT, the oil temperature in °C, is the target.

    Source: Zhou et al. 2021, "Informer", arXiv 2012.07436; github.com/zhouhaoyi/ETDataset, CC BY-ND 4.0.
    """

    def __init__(self, path: str, **how: object):
        super().__init__(**how)
        self.path = Path(path).expanduser()

    @property
    def title(self) -> str:
        return "ETTh1"

    def read(self) -> Series:
        places = [self.path / folder / NAME for folder in FOLDERS]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise UsageError(
                f"ETTh1 is not there: '{places[0]}' was looked for; put {NAME} of github.com/zhouhaoyi/ETDataset "
                "there, set paths.data, or take data=waves, which needs no file."
            )
        values, channels, _ = read_table(file, "date")
        if channels != CHANNELS or len(values) != ROWS:
            raise UsageError(
                f"'{file}' is not ETTh1 as published: it has {len(values):,} rows of {', '.join(channels)[:80]}; for "
                "data of your own take data=series data.path=FILE."
            )
        return Series(values, channels, ENDS, 24)
