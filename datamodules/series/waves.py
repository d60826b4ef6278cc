"""A series that is drawn, so that the best possible forecast of it is known: needs no download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.series.windows import Series, SeriesDataModule, or_

STEPS = (8_000, 2_000, 2_000)
CARRIED = 0.8  # of u from one step to the next
SERIES_SEED = 0
SHIFTS = ("none", "level", "amplitude", "noise")
LEVEL, AMPLITUDE, NOISE = 1.0, 2.0, 2.0  # added; times; times


class Waves(SeriesDataModule):
    """`data=waves`: y[t] = s[t] + u[t], s[t] = sin(2πt/24) + ½ sin(2πt/168), u[t] = 0.8 u[t−1] + σ[t] ε[t],
    σ[t] = 0.1 (1 + 0.8 sin(2πt/24 + 1)), ε standard normal. 8,000 steps train, 2,000 validate, 2,000 test.

    Given y up to t, y[t+h] is normal with mean s[t+h] + 0.8^h u[t] and variance Σ 0.64^(h−k) σ²[t+k] over k = 1 … h:
    nothing forecasts better but by chance.

    Args:
        train_length: train on the last so many of the 8,000 steps; None: on all.
        shift: what is different from the middle of the test part on: the level (1 more), the amplitude of s (twice),
            the noise σ (twice); none.
        others: see `SeriesDataModule`.
    """

    def __init__(self, train_length: int | None = None, shift: str = "none", **how: object):
        super().__init__(**how)
        if shift not in SHIFTS:
            raise UsageError(f"data.shift is {shift!r}{did_you_mean(str(shift), SHIFTS)}: choose {or_(SHIFTS)}.")
        whole = isinstance(train_length, int) and not isinstance(train_length, bool)
        if train_length is not None and not (whole and 1 <= train_length <= STEPS[0]):
            raise UsageError(f"data.train_length is {train_length!r}, but it must be from 1 to {STEPS[0]:,}, or null.")
        self.train_length, self.shift = train_length or STEPS[0], shift
        self.skipped = STEPS[0] - self.train_length  # steps before the first row
        self.change = sum(STEPS) - STEPS[2] // 2 - self.skipped  # the first row that is different

    @property
    def title(self) -> str:
        return "data=waves"

    @property
    def note(self) -> str:
        shifted = f"; from row {self.change:,} on the {self.shift} is another" if self.shift != "none" else ""
        return f"{super().note}{shifted}"

    def season(self, rows: np.ndarray, shifted: bool = True) -> np.ndarray:
        """s of these rows."""
        t = rows + self.skipped
        s = np.sin(2 * np.pi * t / 24) + 0.5 * np.sin(2 * np.pi * t / 168)
        after = (rows >= self.change) & shifted
        factor = np.where(after & (self.shift == "amplitude"), AMPLITUDE, 1.0)
        return s * factor + LEVEL * (after & (self.shift == "level"))

    def noise(self, rows: np.ndarray, shifted: bool = True) -> np.ndarray:
        """σ of these rows."""
        sigma = 0.1 * (1 + 0.8 * np.sin(2 * np.pi * (rows + self.skipped) / 24 + 1))
        return sigma * np.where((rows >= self.change) & shifted & (self.shift == "noise"), NOISE, 1)

    def read(self) -> Series:
        epsilon = np.random.default_rng(SERIES_SEED).standard_normal(sum(STEPS))
        shocks = self.noise(np.arange(sum(STEPS)) - self.skipped) * epsilon
        u = np.empty(sum(STEPS))
        before = 0.0
        for step, shock in enumerate(shocks):
            u[step] = before = CARRIED * before + shock
        rows = np.arange(sum(STEPS) - self.skipped)
        values = self.season(rows) + u[self.skipped :]
        ends = np.cumsum((self.train_length, *STEPS[1:])).tolist()
        return Series(values[:, None], ("y",), tuple(ends), 24)

    def truth(self, origins: np.ndarray, shifted: bool = True) -> tuple[np.ndarray, np.ndarray]:
        rows = origins[:, None] + np.arange(1, self.horizon + 1)
        u = self.series.values[origins, 0] - self.season(origins, shifted)
        mean = self.season(rows, shifted) + CARRIED ** np.arange(1, self.horizon + 1) * u[:, None]
        shocks = self.noise(rows, shifted) ** 2
        variance = np.empty_like(shocks)
        before: Sequence[float] | float = 0.0
        for lead in range(self.horizon):
            variance[:, lead] = before = CARRIED**2 * before + shocks[:, lead]
        return mean[..., None], variance[..., None]
