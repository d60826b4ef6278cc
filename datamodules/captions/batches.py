"""Batches of images with one sentence each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.captions.facts import DIGITS, Fact, facts_of
from datamodules.captions.grammar import TEMPLATES
from datamodules.captions.words import GRAMMARS, encode_sentences
from datamodules.loader import Arrays
from datamodules.scenes.records import Scenes
from datamodules.spec import CaptionSpec

SENTENCE = 0x73656E74  # tells the draw of sentences from the others of the same seed


class CaptionSplit(NamedTuple):
    """N images, all their sentences, and what these say.

    images: uint8 (N, C, H, W).
    codes: int16 (N, K, T), of each image's K sentences, as `encode_sentences` gives them; lengths: int16 (N, K).
    facts: int64 (N, 9), rows as `Fact.row`; fact: int64 (N,), each fact's number.
    labels: int64 (N,), of an image of one class its number in the spec's `names`, else −1.
    """

    images: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray
    facts: np.ndarray
    fact: np.ndarray
    labels: np.ndarray


class CaptionBatch(NamedTuple):
    """What a `CaptionSplit` holds of B images, with one sentence each: codes int64 (B, T), lengths int64 (B,).

    every: int64 (B, K, T), all their sentences; every_lengths: int64 (B, K), 0 where an image has fewer than K.
    item: int64 (B,), the images' numbers in the split.
    """

    images: Tensor
    codes: Tensor
    lengths: Tensor
    facts: Tensor
    fact: Tensor
    labels: Tensor
    every: Tensor
    every_lengths: Tensor
    item: Tensor


class OneSentence:
    """Makes a `CaptionBatch`: of each item's sentences one, drawn as a function of (seed, epoch, item).

    Without a seed always the same one: Lightning tells loaders that validate and test the epoch too.
    """

    def __init__(self, seed: int | None):
        self.seed = seed

    def __call__(self, arrays: Arrays, rows: np.ndarray, epoch: int) -> CaptionBatch:
        images, codes, lengths, *others = arrays
        there = (lengths > 0).sum(1)  # an image's own sentences stand first
        chosen = np.arange(len(rows)), self.drawn(rows, codes.shape[1], epoch) % there
        whole = (codes[chosen], lengths[chosen], *others, codes, lengths, rows)
        return CaptionBatch(torch.from_numpy(images), *(torch.from_numpy(part.astype(np.int64)) for part in whole))

    def drawn(self, rows: np.ndarray, sentences: int, epoch: int) -> np.ndarray:
        """Which of its sentences each item gets (B,), whatever the number of items there are."""
        # From 1 on: numpy takes (a, b, 0) for (a, b).
        rng = np.random.default_rng((0, SENTENCE) if self.seed is None else (self.seed, SENTENCE, epoch + 1))
        return rng.integers(0, sentences, rows.max() + 1, np.uint8)[rows]


def captioned(images: np.ndarray, scenes: Scenes, spec: CaptionSpec) -> CaptionSplit:
    """Images with the sentences of their scenes, those of each language one after the other."""
    facts = facts_of(scenes)
    known: dict[int, int] = {}  # each fact's place among the different ones, whose sentences are made once
    places = np.array([known.setdefault(fact.number, len(known)) for fact in facts])
    different: list[Fact] = [facts[row] for row in np.unique(places, return_index=True)[1]]
    codes, lengths = [], []
    for language in spec.languages:
        sentences = [text for fact in different for text in GRAMMARS[language].sentences(fact)]
        found, counts = encode_sentences(sentences, spec, language)
        codes.append(found.reshape(len(different), TEMPLATES, spec.length))
        lengths.append(counts.reshape(len(different), TEMPLATES))
    labels = [DIGITS * fact.pairs[0][0] + fact.pairs[0][1] if fact.kind == "one" else -1 for fact in facts]
    return CaptionSplit(
        images,
        np.concatenate(codes, 1)[places].astype(np.int16),
        np.concatenate(lengths, 1)[places].astype(np.int16),
        np.array([fact.row for fact in facts]),
        np.array([fact.number for fact in facts]),
        np.array(labels),
    )
