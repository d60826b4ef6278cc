"""What a caption says of a scene of one to three digits, and which scenes can be told without doubt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from datamodules.scenes.records import COLOURS, Scenes

KINDS = ("one", "left", "above", "three")  # one digit and where it is; two side by side; two, one above; three in a row
DIGITS = 10
PAIRS = tuple(product(range(len(COLOURS)), range(DIGITS)))  # (colour, digit), number 10 · colour + digit
MOST = 3  # digits that sentences tell of
OFF_CENTRE = 0.08  # of the image's side: a single digit's least distance from both middle lines
CLEARER = 1.5  # of two digits: the larger of their distances, across and down, over the smaller
NEIGHBOURS = 0.2  # of three digits: the least distance across


class Fact(NamedTuple):
    """What is said: the digits in the fact's order, of `left` and `three` from left to right, of `above` the upper one
    first; of `one` also where it is, (bottom, right), each 0 or 1."""

    kind: str
    pairs: tuple[tuple[int, int], ...]
    place: tuple[int, int] | None = None

    @property
    def row(self) -> list[int]:
        """Kind, bottom, right, then colour and digit of up to three: nine integers, −1 where there is nothing."""
        found = [KINDS.index(self.kind), *(self.place or (-1, -1)), *(part for pair in self.pairs for part in pair)]
        return found + [-1] * (3 + 2 * MOST - len(found))

    @property
    def number(self) -> int:
        """One number for each fact: images with the same one are told by the same sentences."""
        pairs = [DIGITS * colour + digit for colour, digit in self.pairs]
        code = 2 * self.place[0] + self.place[1] if self.place else 0
        for pair in pairs:
            code = code * len(PAIRS) + pair
        before = {"one": 0, "left": 4 * 60, "above": 4 * 60 + 60**2, "three": 4 * 60 + 2 * 60**2}
        return before[self.kind] + code


def fact_of_row(row: np.ndarray | list[int]) -> Fact:
    kind, bottom, right, *pairs = (int(value) for value in row)
    digits = [(colour, digit) for colour, digit in zip(pairs[::2], pairs[1::2], strict=True) if colour >= 0]
    return Fact(KINDS[kind], tuple(digits), (bottom, right) if KINDS[kind] == "one" else None)


def facts_of(scenes: Scenes) -> list[Fact]:
    """What is to be said of each scene."""
    columns = (scenes.count, scenes.colour, scenes.digit, scenes.x, scenes.y)
    return [fact_of(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def fact_of(count: int, colours: list[int], digits: list[int], x: list[float], y: list[float]) -> Fact:
    pairs = list(zip(colours[:count], digits[:count], strict=True))
    if count == 1:
        return Fact("one", tuple(pairs), (int(y[0] > 0.5), int(x[0] > 0.5)))
    beside = count == 3 or abs(x[0] - x[1]) > abs(y[0] - y[1])
    order = sorted(range(count), key=(x if beside else y).__getitem__)
    kind = "three" if count == 3 else "left" if beside else "above"
    return Fact(kind, tuple(pairs[place] for place in order))


def facts_of_one(pair: tuple[int, int]) -> list[Fact]:
    """The four facts of one digit alone."""
    return [Fact("one", (pair,), place) for place in product((0, 1), (0, 1))]


def facts_of_two() -> Iterator[Fact]:
    """All 7,080 facts of two digits: the pairs of a scene differ."""
    return (Fact(kind, pairs) for kind in ("left", "above") for pairs in permutations(PAIRS, 2))


def held_out(colour: int, digit: int) -> bool:
    """Is this pair never trained on? Ten of the 60: each digit and each colour occurs in others."""
    return colour == digit % len(COLOURS)


class CaptionLayout:
    """Scenes that sentences tell apart: no pair twice in one; held-out pairs in `unseen` alone, one in each scene; and
    places without doubt."""

    def pairs(self, count: int, split: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        while True:
            digits = rng.integers(DIGITS, size=count)
            # Of the colours that follow the held-out one, each as likely.
            colours = (digits + 1 + rng.integers(len(COLOURS) - 1, size=count)) % len(COLOURS)
            if split == "unseen":
                chosen = rng.integers(count)
                colours[chosen] = digits[chosen] % len(COLOURS)
            if len(set(zip(colours.tolist(), digits.tolist(), strict=True))) == count:
                return colours, digits

    def allows(self, count: int, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> np.ndarray:
        if count == 1:
            return (np.abs(x - 0.5) >= OFF_CENTRE) & (np.abs(y - 0.5) >= OFF_CENTRE)
        across, down = np.abs(x[:, None] - others[:, 0]), np.abs(y[:, None] - others[:, 1])
        if count == 2:
            return (np.maximum(across, down) >= CLEARER * np.minimum(across, down)).all(1)
        return (across >= NEIGHBOURS).all(1)
