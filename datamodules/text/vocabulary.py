"""Text to codes and back: by character, or by word."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from datamodules.errors import UsageError
from datamodules.spec import TextSpec

UNKNOWN = "<unknown>"
# A line's end is a token of its own; other blanks only separate. Apostrophes and hyphens inside a word belong to it.
WORD = re.compile(r"\n|\w+(?:['’-]\w+)*|[^\w\s]")
# No blank before these when words are put together again.
CLOSING = re.compile(r" ([.,;:!?)\]}’”])")


def character_spec(text: str) -> TextSpec:
    """Every character of the text, in the order of their code points."""
    points = np.unique(_points(text))
    return TextSpec("".join(map(chr, points)))


def word_spec(text: str, words: int) -> TextSpec:
    """The `words` most frequent words of the text, frequent ones first, after a token for all the others."""
    counts = Counter(WORD.findall(text))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:words]
    return TextSpec(" ".join([UNKNOWN, *frequent]), unit="word")


def encode(text: str, spec: TextSpec) -> np.ndarray:
    """The text's codes int64 (N,); a word outside the vocabulary has the code of the unknown, 0.

    Raises:
        UsageError: a character is outside the vocabulary; the message says which.
    """
    if spec.unit == "word":
        code = {word: number for number, word in enumerate(spec.tokens)}
        return np.array([code.get(word, 0) for word in WORD.findall(text)], np.int64)
    known, points = _points(spec.vocabulary), _points(text)
    codes = np.searchsorted(known, points)
    found = known[np.minimum(codes, len(known) - 1)] == points
    if not found.all():
        strange = ", ".join(repr(chr(point)) for point in np.unique(points[~found])[:10])
        raise UsageError(f"{text[:40]!r} has {strange}, which the text this network is trained on does not have.")
    return codes


def decode(codes: np.ndarray, spec: TextSpec) -> str:
    """Text again; of words with one blank between, and none before closing punctuation or around a line's end."""
    tokens = spec.tokens
    chosen = [tokens[code] for code in codes]
    if spec.unit == "char":
        return "".join(chosen)
    return CLOSING.sub(r"\1", " ".join(chosen)).replace(" \n", "\n").replace("\n ", "\n")


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
