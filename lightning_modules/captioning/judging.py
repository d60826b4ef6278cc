"""What sentences say of scenes whose facts are known, and whether attention lies on what a word names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.captions.batches import CaptionBatch
from datamodules.captions.facts import Fact
from datamodules.captions.grammar import TEMPLATES, Grammar
from datamodules.captions.words import GRAMMARS
from datamodules.scenes.pixels import surfaces
from datamodules.scenes.records import Scenes
from datamodules.scenes.sources import INK
from lightning_modules.captioning.network import Captioner


def judge(sentences: Sequence[str], facts: Sequence[Fact], grammar: Grammar) -> dict[str, np.ndarray]:
    """For each sentence (N,), from 0 to 1: is it read as a fact (`parsed`), as the scene's own (`exact`), with as many
    digits (`count`); of its digits, in the fact's order, the share whose `colour`, whose `digit` is right, over the
    larger number of said and true ones; is `place` right: one digit's corner; the direction of several, and none of
    them said to be where another is. What cannot be read counts 0."""
    rows = [judge_one(grammar.parse(sentence), fact) for sentence, fact in zip(sentences, facts, strict=True)]
    return {name: np.array([row[name] for row in rows], np.float64) for name in NAMES}


NAMES = ("parsed", "exact", "count", "colour", "digit", "place")


def judge_one(said: Fact | None, true: Fact) -> dict[str, float]:
    if said is None:
        return dict.fromkeys(NAMES, 0.0)
    most = max(len(said.pairs), len(true.pairs))
    both = list(zip(said.pairs, true.pairs, strict=False))
    moved = any(pair != own and pair in true.pairs for pair, own in both)
    return {
        "parsed": 1.0,
        "exact": float(said == true),
        "count": float(len(said.pairs) == len(true.pairs)),
        "colour": sum(pair[0] == own[0] for pair, own in both) / most,
        "digit": sum(pair[1] == own[1] for pair, own in both) / most,
        "place": float(said.kind == true.kind and said.place == true.place and not moved),
    }


def object_masks(scenes: Scenes, side: int) -> np.ndarray:
    """Where each digit's ink is: bool (N, M, side, side)."""
    found = np.zeros((*scenes.digit.shape, side, side), bool)
    for place in range(scenes.digit.shape[1]):
        rows = np.flatnonzero(scenes.count > place)
        found[rows, place] = surfaces(scenes, rows, place, side).numpy() > INK
    return found


def cells_on(masks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which cells of a map lie on each digit: bool (N, M, rows · columns).

    A cell does if its centre is at most one cell's side from the digit's ink, the larger of the distances across and
    down, and nearer to it than to any other's.
    """
    images, most, height, width = masks.shape
    cell = max(height / rows, width / columns)
    down, across = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    centres = np.stack(np.meshgrid(down, across, indexing="ij"), -1).reshape(-1, 2)
    distance = np.full((images, most, len(centres)), np.inf)
    for image, place in zip(*masks.any((2, 3)).nonzero(), strict=True):
        ink = np.argwhere(masks[image, place]) + 0.5
        distance[image, place] = np.abs(centres[:, None] - ink).max(2).min(1)
    found = distance <= cell
    for place in range(most):
        others = np.delete(distance, place, 1).min(1) if most > 1 else np.full((images, len(centres)), np.inf)
        found[:, place] &= distance[:, place] < others
    return found


def named_words(facts: Sequence[Fact], scenes: Scenes, grammar: Grammar) -> np.ndarray:
    """Of each scene's first sentence: (N, M, 3), for each digit named which of the scene's it is, and which words are
    its colour's and its own; −1 where there is none."""
    found = np.full((len(facts), scenes.digit.shape[1], 3), -1)
    for row, fact in enumerate(facts):
        drawn = list(zip(scenes.colour[row].tolist(), scenes.digit[row].tolist(), strict=True))[: scenes.count[row]]
        for number, (pair, words) in enumerate(zip(fact.pairs, grammar.word_places(fact, 0), strict=True)):
            found[row, number] = drawn.index(pair), *words
    return found


def hits(weights: torch.Tensor, words: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At the named words (N, M), −1 where there is none: does the most attended cell lie on the digit; the share of α
    that does; and the share of the map's cells that do (N, M each, NaN where there is none).

    Args:
        weights: α (N, T, L) at the step that says word t.
        words: (N, M, 2), of each named digit which of the scene's it is, and the word.
        on: `cells_on` (N, M, L).
    """
    weights = weights.float().cpu().numpy()
    there = words[:, :, 0] >= 0
    rows = np.arange(len(words))[:, None]
    looked, cells = weights[rows, words[:, :, 1]], on[rows, words[:, :, 0]]
    hit = np.take_along_axis(cells, looked.argmax(2)[:, :, None], 2)[:, :, 0]
    found = (hit.astype(np.float64), (looked * cells).sum(2), cells.mean(2))
    return tuple(np.where(there, values, np.nan) for values in found)


class KnownDigits:
    """A test split's digits: on which cells of the map each lies, and which words of the first sentences name it."""

    def __init__(self, network: Captioner, scenes: Scenes, facts: Sequence[Fact]):
        spec, encoder = network.spec, network.encoder
        self.cells = cells_on(object_masks(scenes, spec.height), encoder.rows, encoder.columns)
        self.words = {name: named_words(facts, scenes, GRAMMARS[name]) for name in spec.languages}

    def rows(self, network: Captioner, annotations: Tensor, batch: CaptionBatch) -> dict[str, Tensor]:
        """Of each digit of each scene: hits at its colour's word and at its own, by its own image and by another's."""
        items, found = batch.item.cpu().numpy(), {}
        for place, language in enumerate(network.spec.languages):
            codes = batch.every[:, TEMPLATES * place, :-1]
            own = network.teach(annotations, codes).weights
            other = network.teach(annotations.roll(1, 0), codes).weights
            for column, name in ((1, "colour"), (2, "digit")):
                named = self.words[language][items][:, :, [0, column]]
                hit, mass, chance = hits(own, named, self.cells[items])
                found |= {f"_{name}_hit_{language}": hit, f"_{name}_mass_{language}": mass, "_chance": chance}
                found[f"_{name}_shuffled_{language}"] = hits(other, named, self.cells[items])[0]
        return {name: torch.from_numpy(values) for name, values in found.items()}
