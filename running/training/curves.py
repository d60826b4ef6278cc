"""metrics.csv: a run's curves, one row per step at which anything was logged."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from reporting.report import write_text


class CurvesLogger(Logger):
    """Keeps `metrics.csv` whole at every save, and goes on with the file of a resumed run.

    (Lightning's CSVLogger deletes the file it finds.) Columns: step, epoch, then each metric as it first appears.

    Args:
        folder: the run's.
        resumed_at: keep the earlier curves of so many steps; None: begin anew.
    """

    SECONDS = 10  # between two writes of the whole file

    def __init__(self, folder: Path, resumed_at: float | None = None):
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, Any]] = {}
        self.written_at = 0.0
        self.urgent = False
        if resumed_at is not None and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = {int(row["step"]): row for row in csv.DictReader(file)}
            self.rows = {step: row for step, row in rows.items() if step < resumed_at}

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = 0 if step is None else step
        self.rows.setdefault(step, {"step": step}).update(metrics)
        # A checkpoint is written after a validation: the curves up to it must be there to go on with.
        self.urgent |= any(name.startswith("val/") for name in metrics)

    @rank_zero_only
    def save(self) -> None:
        if not self.rows or (not self.urgent and time.monotonic() - self.written_at < self.SECONDS):
            return
        columns = dict.fromkeys(["step", "epoch", *(name for row in self.rows.values() for name in row)])
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[step] for step in sorted(self.rows))
        write_text(self.path, text.getvalue())
        self.urgent, self.written_at = False, time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.urgent = True
        self.save()
