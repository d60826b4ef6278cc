"""Batches of text: contiguous streams whose state goes on from batch to batch, or windows that stand alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.loader import EpochOrder


class TextBatch(NamedTuple):
    """Codes (B, T), the codes that follow each of them (B, T), and whether the rows go on from those of the batch
    before, so that its state is carried on; else they start from the zero state."""

    inputs: Tensor
    targets: Tensor
    carried: bool


class TextLoader:
    """What the loaders share: the place in the epoch, and batches made by number.

    `state_dict` holds the place, so that a run resumed in the middle of an epoch goes on where it stopped
    (`running.training.callbacks.Record`); `sampler.set_epoch` is called by Lightning before every training epoch.

    Args:
        codes: int64 (N,), the text.
        batches: how many an epoch has.
        sampler: what changes with the epoch.
    """

    batch_sampler = None  # Lightning asks every loader that has a `sampler` for one

    def __init__(self, codes: np.ndarray, batches: int, sampler: EpochOrder):
        self.codes, self.batches, self.sampler = codes, batches, sampler
        self._batches_done = self._start = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[TextBatch]:
        first, self._start = self._start, 0
        prepared = self._prepare()
        for number in range(first, len(self)):
            self._batches_done = number + 1 if number + 1 < len(self) else 0
            yield self._batch(prepared, number)

    def _prepare(self) -> Any:
        """What all batches of this epoch are cut from."""
        raise NotImplementedError

    def _batch(self, prepared: Any, number: int) -> TextBatch:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"batches_done": self._batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches_done = self._start = state["batches_done"]


class Streams(TextLoader):
    """A text cut into streams of equal length, read side by side, `window` codes a batch: truncated back-propagation.

    Every epoch the text is turned as a ring to a new place, a function of (seed, epoch), so that streams and windows
    begin elsewhere. What is left over at the end (less than a window of each stream) is not read in that epoch.

    Args:
        codes: int64 (N,), N > streams · world · window.
        streams: rows of a batch, of each process.
        window: codes of a row.
        seed: turns the text; None: it begins at its beginning.
        rank, world: this process's number and how many there are.
    """

    def __init__(
        self, codes: np.ndarray, streams: int, window: int, seed: int | None = None, rank: int = 0, world: int = 1
    ):
        self.streams, self.window, self.rank, self.world = streams, window, rank, world
        self.stream_length = (len(codes) - 1) // (streams * world)
        super().__init__(codes, self.stream_length // window, EpochOrder(len(codes), seed))

    def _prepare(self) -> np.ndarray:
        if self.sampler.seed is None:
            return self.codes
        turn = np.random.default_rng((self.sampler.seed, self.sampler.epoch)).integers(len(self.codes))
        return np.roll(self.codes, -turn)

    def _batch(self, prepared: np.ndarray, number: int) -> TextBatch:
        first_stream = self.rank * self.streams
        starts = (first_stream + np.arange(self.streams)) * self.stream_length + number * self.window
        return cut(prepared, starts, self.window, carried=number > 0)


class Windows(TextLoader):
    """Windows that each start from the zero state.

    Args:
        codes: int64 (N,).
        starts: the windows' first codes; the code before is never needed, the one after each window's end is.
        window: codes of each.
        batch_size: windows in a batch; the last may hold fewer.
        seed: shuffles, anew every epoch; None keeps the given order.
        rank, world: this process's number and how many there are; each takes every world-th window.
        even: drop the few last windows that not every process would get.
    """

    def __init__(
        self,
        codes: np.ndarray,
        starts: np.ndarray,
        window: int,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
    ):
        self.starts, self.window, self.batch_size = starts, window, batch_size
        self.rank, self.world, self.even = rank, world, even
        items = len(starts) // world if even else len(range(rank, len(starts), world))
        super().__init__(codes, -(-items // batch_size), EpochOrder(len(starts), seed))

    def _prepare(self) -> np.ndarray:
        order = self.sampler.indices()
        if self.even:
            order = order[: len(order) // self.world * self.world]
        return self.starts[order[self.rank :: self.world]]

    def _batch(self, prepared: np.ndarray, number: int) -> TextBatch:
        rows = prepared[number * self.batch_size : (number + 1) * self.batch_size]
        return cut(self.codes, rows, self.window, carried=False)


class Stretch(TextLoader):
    """A stretch of text to be scored, each code from `first` up to `last` the target exactly once.

    carried: one row, CHUNK codes a batch, the state carried through the whole stretch.
    reset: windows of `window` codes, each from the zero state, and at the end one shorter window of what is left.
    Of several processes each reads all of it: a state cannot be carried past another's part.

    The code before the stretch, where the text has one, is the first input, so that the first code counts as well;
    a stretch at the beginning of a text is counted from its second code on.
    """

    CHUNK = 1024

    def __init__(self, codes: np.ndarray, first: int, last: int, scoring: str, window: int, batch_size: int):
        self.first, self.last, self.batch_size = max(first, 1), last, batch_size
        self.carried = scoring == "carried"
        self.window = self.CHUNK if self.carried else window
        super().__init__(codes, len(self._pieces()), EpochOrder(len(codes), None))

    def _pieces(self) -> list[tuple[np.ndarray, int]]:
        """Of each batch the places of its inputs, and how many codes each row has."""
        whole, rest = divmod(self.last - self.first, self.window)
        starts = self.first - 1 + self.window * np.arange(whole + 1)
        full, short = starts[:-1], [(starts[-1:], rest)] if rest else []
        rows = 1 if self.carried else self.batch_size
        return [(full[place : place + rows], self.window) for place in range(0, whole, rows)] + short

    def _prepare(self) -> list[tuple[np.ndarray, int]]:
        return self._pieces()

    def _batch(self, prepared: list[tuple[np.ndarray, int]], number: int) -> TextBatch:
        starts, length = prepared[number]
        return cut(self.codes, starts, length, carried=self.carried and number > 0)


def cut(codes: np.ndarray, starts: np.ndarray, length: int, carried: bool) -> TextBatch:
    """Rows of `length` codes from each start, and the codes that follow them."""
    rows = torch.from_numpy(codes[starts[:, None] + np.arange(length + 1)])
    return TextBatch(rows[:, :-1], rows[:, 1:], carried)
