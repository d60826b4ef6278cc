"""Figures of a split's sentences: beside references and facts, of attention, of what needs no decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.captions.words import GRAMMARS
from lightning_modules.captioning.judging import judge
from lightning_modules.captioning.scores import (
    bleu,
    bleu_counts,
    bleu_paper,
    cider_d,
    rouge_l,
    without_punctuation,
)

BESIDE = ("bleu_1", "bleu_4", "bleu_4_paper", "cider_d", "exact", "item_bleu", "item_cider_d")  # figures of a baseline


def sentence_figures(said: Sequence[str], references: list[list[str]], language: str) -> dict[str, Any]:
    """Figures of sentences beside their references; `item_…` are arrays with a row for each image."""
    plain = [without_punctuation(sentence, language) for sentence in said]
    true = [[without_punctuation(sentence, language) for sentence in own] for own in references]
    items = cider_d(plain, true)
    return {
        **bleu(plain, true),
        **bleu_paper(said, references),
        "rouge_l": rouge_l(plain, true),
        "cider_d": items.mean(),
        "words": float(np.mean([len(sentence.split()) for sentence in said])),
        "distinct": len(set(said)) / len(said),
        "item_cider_d": items,
        "item_bleu": bleu_counts(plain, true),
    }


def baseline_figures(
    said: Mapping[str, Sequence[str]], references: list[list[str]], facts: Any, language: str
) -> dict[str, Any]:
    """Of what needs no decoder, by its name: `{name}_bleu_4` and others."""
    figures = {}
    for name, sentences in said.items():
        own = sentence_figures(sentences, references, language) | judged(sentences, facts, language)
        figures |= {f"{name}_{key}": own[key] for key in BESIDE if key in own}
    return figures


def photograph_figures(references: list[list[str]], language: str, known: set[str]) -> dict[str, float]:
    """What people reach, an image's first sentence beside its others; the share of words not in the vocabulary."""
    several = [own for own in references if len(own) > 1]
    words = [word for own in references for text in own for word in text.split(" ")]
    found = {"unknown_words": sum(word not in known for word in words) / len(words)}
    if several:
        human = sentence_figures([own[0] for own in several], [own[1:] for own in several], language)
        found |= {f"human_{name}": human[name] for name in ("bleu_4", "cider_d")}
    return found


def judged(said: Sequence[str], facts: Any, language: str) -> dict[str, Any]:
    """What sentences say of scenes; nothing where facts are not known."""
    if not facts:
        return {}
    rows = judge(said, facts, GRAMMARS[language])
    found: dict[str, Any] = {name: values.mean() for name, values in rows.items()}
    count = np.array([len(fact.pairs) for fact in facts])
    found |= {f"exact_{n}": rows["exact"][count == n].mean() for n in np.unique(count).tolist()}
    return found | {"item_exact": rows["exact"]}


def share_of_others(said: Sequence[str], language: str, words: Mapping[str, set[str]]) -> float:
    """The share of all words said that only other languages have."""
    others = set().union(*(own for name, own in words.items() if name != language)) - words[language]
    all_words = [word for sentence in said for word in sentence.split()]
    return sum(word in others for word in all_words) / max(1, len(all_words))


def attention_figures(rows: Mapping[str, Tensor], language: str) -> dict[str, float]:
    """Means over all digits of all scenes."""

    def mean(name: str) -> float:
        return float(np.nanmean(rows[name].numpy()))

    first = "colour" if language == "en" else "digit"  # of a digit's words the one that is said first
    return {
        "hit_colour": mean(f"_colour_hit_{language}"),
        "hit_digit": mean(f"_digit_hit_{language}"),
        "attention_hit": mean(f"_{first}_hit_{language}"),
        "hit_shuffled": mean(f"_{first}_shuffled_{language}"),
        "hit_chance": mean("_chance"),
        "attention_mass": mean(f"_{first}_mass_{language}"),
    }
