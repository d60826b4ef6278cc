"""Series: windows cut from them, and where they come from."""

from datamodules.series.ett import ETT
from datamodules.series.table import Table
from datamodules.series.waves import Waves
from datamodules.series.windows import SeriesBatch, SeriesDataModule

__all__ = ["ETT", "SeriesBatch", "SeriesDataModule", "Table", "Waves"]
