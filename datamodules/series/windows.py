"""What every series shares: three parts one after the other, windows cut from them, loaders, and the spec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError, did_you_mean
from datamodules.loader import ArrayLoader, Arrays
from datamodules.module import SplitDataModule
from datamodules.spec import SeriesSpec

FEATURES = ("S", "M", "MS")
SPLITS = ("temporal", "random")
RANDOM_SPLIT_SEED = 0


class Series(NamedTuple):
    """Values (rows, channels) in their own units, NaN where missing, at equal steps; the rows where train, val and test
    end; steps of a season."""

    values: np.ndarray
    channels: tuple[str, ...]
    ends: tuple[int, int, int]
    period: int


class SeriesBatch(NamedTuple):
    """Windows (B, L, C) in their own units, 0 where not `observed` (B, L, C); the values that follow (B, H, targets),
    NaN where missing; the row of each window's last value (B,)."""

    inputs: Tensor
    observed: Tensor
    targets: Tensor
    origins: Tensor


class SeriesDataModule(SplitDataModule):
    """Windows of a series, one at every step. A series implements `read`.

    A window is named by its origin, the row of its last value. A split's windows are those whose *targets* lie in its
    part; inputs of the first ones reach back over the border. Scaling is that of the training rows.

    Args:
        window: steps seen, L.
        horizon: steps forecast, H.
        features: S: the targets alone, seen and forecast; M: all channels, seen and forecast; MS: all seen, the targets
            forecast.
        target: the channel, or channels, that S and MS forecast; None: the last.
        missing: of each training window's inputs a fraction drawn from 0 up to this is hidden, anew every epoch.
        split: temporal: parts one after the other; random: windows of all parts shuffled into three by a fixed seed, so
            that a test window overlaps with training windows: only to show what that does to the figures.
        batch_size, eval_batch_size: windows in a batch, per device.
        seed: of the training order.

    Raises:
        UsageError: a choice is unknown, or a number impossible.
    """

    def __init__(
        self,
        window: int = 168,
        horizon: int = 24,
        features: str = "S",
        target: str | Sequence[str] | None = None,
        missing: float = 0.0,
        split: str = "temporal",
        batch_size: int = 64,
        eval_batch_size: int = 256,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed, "windows")
        for name, size in {"window": window, "horizon": horizon}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"data.{name} is {size!r}, but it must be a whole number, 1 or more.")
        for name, word, known in [("features", features, FEATURES), ("split", split, SPLITS)]:
            if word not in known:
                raise UsageError(f"data.{name} is {word!r}{did_you_mean(str(word), known)}: choose {or_(known)}.")
        if isinstance(missing, bool) or not isinstance(missing, (int, float)) or not 0 <= missing < 1:
            raise UsageError(f"data.missing is {missing!r}, but it must be a fraction from 0 up to, not including, 1.")
        self.window, self.horizon, self.features, self.missing, self.split = window, horizon, features, missing, split
        self.target = [target] if isinstance(target, (str, int, float)) else target and list(target)
        self.series: Series | None = None
        self._spec: SeriesSpec | None = None

    @abstractmethod
    def read(self) -> Series:
        """The whole series."""

    @property
    def title(self) -> str:
        """The series' name in messages."""
        return "the series"

    def truth(self, origins: np.ndarray, shifted: bool = True) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and variance (N, H, targets) that the best forecast has, in the series' own units; None: not known.

        Args:
            shifted: by one who knows of a shift in the test part.
        """
        return None

    @property
    def spec(self) -> SeriesSpec:
        return self._spec

    @property
    def note(self) -> str:
        ends = (0, *self.series.ends)
        rows = [f"{after - before:,}" for before, after in pairwise(ends)]
        text = f"{rows[0]} steps train, {rows[1]} validate, {rows[2]} test"
        if gaps := int(np.isnan(self.series.values).sum()):
            text += f"; {gaps:,} values are missing"
        if missing := np.isnan(self.series.values[:, list(self._spec.target)]).sum():
            text += f", {missing:,} of them of targets: left out of loss and figures"
        return text + "; windows shuffled over all parts: train and test overlap" * (self.split == "random")

    def prepare_data(self) -> None:
        if self._spec is None:
            series = self.read()
            self.series, self._spec = self._specified(series)
            for split in ("train", "val", "test"):
                if not len(self.origins(split)):
                    raise UsageError(f"The {split} part of {self.title} has no target that is not missing.")

    def _specified(self, series: Series) -> tuple[Series, SeriesSpec]:
        """The channels that are used, and their spec."""
        target = self.target or [series.channels[-1]]
        if self.features == "M":
            target = list(series.channels)
        for name in target:
            if name not in series.channels:
                near = did_you_mean(str(name), series.channels)
                raise UsageError(
                    f"data.target names {name!r}, which {self.title} does not have{near}: its columns are "
                    f"{', '.join(series.channels)}."
                )
        if self.features == "S":
            kept = [series.channels.index(name) for name in target]
            series = series._replace(values=series.values[:, kept], channels=tuple(target))
        check_lengths(series, self.window, self.horizon, self.title)
        train = series.values[: series.ends[0]]
        places = tuple(series.channels.index(name) for name in target)
        mean, scale = moments(train, series.channels, self.title)
        scaled = ((train - mean) / scale)[:, places]
        changes = [np.nanvar(scaled[lead:] - scaled[:-lead], 0) for lead in range(1, self.horizon + 1)]
        log_variance = np.log(np.maximum(np.nan_to_num(changes, nan=1.0), 1e-8))
        numbers = mean.tolist(), scale.tolist(), log_variance.flatten().tolist()
        return series, SeriesSpec(series.channels, self.window, self.horizon, places, series.period, *numbers)

    def origins(self, split: str) -> np.ndarray:
        """The rows of the last values of a split's windows, in order; `between`: of those whose targets lie on both
        sides of the border between val and test. A window all of whose targets are missing is none."""
        train, val, test = self.series.ends
        first, last = {
            "train": (self.window - 1, train - self.horizon),
            "val": (train - 1, val - self.horizon),
            "between": (val - self.horizon, val - 1),
            "test": (val - 1, test - self.horizon),
        }[split]
        if self.split == "temporal":
            return self._with_targets(np.arange(first, last))
        pool = np.random.default_rng(RANDOM_SPLIT_SEED).permutation(np.arange(self.window - 1, test - self.horizon))
        cuts = [int(len(pool) * end / test) for end in (train, val)]
        parts = dict(zip(("train", "val", "test"), np.split(pool, cuts), strict=True))
        return self._with_targets(np.sort(parts.get(split, pool[:0])))

    def _with_targets(self, origins: np.ndarray) -> np.ndarray:
        known = ~np.isnan(self.series.values[:, list(self.spec.target)]).all(1)
        if known.all():
            return origins
        counts = np.concatenate([[0], np.cumsum(known)])  # of rows before each
        return origins[counts[origins + self.horizon + 1] > counts[origins + 1]]

    def windows(self, origins: np.ndarray, hidden: np.ndarray | None = None) -> SeriesBatch:
        """The windows of these origins; `hidden` (B, L, C): values that are not to be seen, as if they were missing."""
        seen = self.series.values[origins[:, None] + np.arange(1 - self.window, 1)]
        observed = ~np.isnan(seen) if hidden is None else ~np.isnan(seen) & ~hidden
        after = self.series.values[origins[:, None] + np.arange(1, self.horizon + 1)][..., list(self.spec.target)]
        inputs = np.where(observed, seen, 0.0).astype(np.float32)
        arrays = inputs, observed, after.astype(np.float32), origins
        return SeriesBatch(*map(torch.from_numpy, arrays))

    def _hide(self, arrays: Arrays, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> Arrays:
        """Of each window a fraction from 0 to `missing` of its values."""
        fractions = rng.uniform(0, self.missing, (len(rows), 1, 1))
        return arrays[0], rng.random((len(rows), self.window, len(self.spec.channels))) < fractions

    def _loader(self, split: str) -> ArrayLoader:
        training = split == "train"
        return ArrayLoader(
            (self.origins(split),),
            **self.dealt(split),
            augment=self._hide if training and self.missing else None,
            collate=lambda arrays, rows, epoch: self.windows(*arrays),
        )


def or_(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def moments(train: np.ndarray, channels: Sequence[str], title: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each channel (C,), over what is there.

    Raises:
        UsageError: a channel has no value, or always the same.
    """
    for name, column in zip(channels, train.T, strict=True):
        there = column[~np.isnan(column)]
        if not len(there) or there.max() == there.min():
            raise UsageError(
                f"The channel {name!r} of {title} {'is constant' if len(there) else 'has no value'} over its training "
                "part: leave it out."
            )
    return np.nanmean(train, 0), np.nanstd(train, 0)


def check_lengths(series: Series, window: int, horizon: int, title: str) -> None:
    """Raises UsageError when a split has not one window."""
    ends = (0, *series.ends)
    for number, split in enumerate(("train", "val", "test")):
        rows = ends[number + 1] - ends[number]
        least = horizon if number else window + horizon
        if rows < least:
            what = f"data.horizon={horizon}" if number else f"data.window={window} and data.horizon={horizon}"
            raise UsageError(
                f"The {split} part of {title} has {rows:,} steps, but {what} need {least:,}: take smaller ones, or a "
                "longer series."
            )
