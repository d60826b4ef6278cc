"""Sentences as codes, in one vocabulary of the words of all languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.captions.english import ENGLISH
from datamodules.captions.grammar import Grammar
from datamodules.captions.persian import PERSIAN
from datamodules.errors import UsageError
from datamodules.spec import END, PAD, UNKNOWN, CaptionSpec, start_word

GRAMMARS: dict[str, Grammar] = {grammar.name: grammar for grammar in (ENGLISH, PERSIAN)}


def grammar_vocabulary(languages: Sequence[str]) -> tuple[str, ...]:
    """Padding, end, the unknown word, the word that begins a sentence of each language; then all words in order."""
    words = set().union(*(GRAMMARS[language].words for language in languages))
    return (PAD, END, UNKNOWN, *map(start_word, languages), *sorted(words))


def longest_sentence(languages: Sequence[str]) -> int:
    """Tokens of the longest, with the word that begins it and the one that ends it."""
    return max(GRAMMARS[language].longest for language in languages) + 2


def encode_sentences(sentences: Sequence[str], spec: CaptionSpec, language: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes int64 (N, spec.length), the language's start first, the end last, then padding; and lengths int64 (N,),
    start and end counted. A word that the vocabulary does not have gets the code of the unknown one.

    Raises:
        UsageError: a sentence is too long, or the language is unknown.
    """
    code, start = spec.codes, spec.start(language)
    codes, lengths = np.full((len(sentences), spec.length), spec.pad, np.int64), np.empty(len(sentences), np.int64)
    for row, sentence in enumerate(sentences):
        found = [start, *(code.get(word, spec.unknown) for word in sentence.split(" ")), spec.end]
        if len(found) > spec.length:
            raise UsageError(
                f"{sentence[:40]!r} … has {len(found) - 2} words, but sentences here have at most {spec.length - 2}."
            )
        codes[row, : len(found)], lengths[row] = found, len(found)
    return codes, lengths


def decode_sentence(codes: Sequence[int] | np.ndarray, spec: CaptionSpec) -> str:
    """The words up to the end, one blank between; start and padding are left out."""
    silent = {spec.pad, *(spec.start(language) for language in spec.languages)}
    words = []
    for code in map(int, codes):
        if code == spec.end:
            break
        if code not in silent:
            words.append(spec.vocabulary[code])
    return " ".join(words)
