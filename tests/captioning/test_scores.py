"""BLEU by its formula, CIDEr-D beside pycocoevalcap's, ROUGE-L in Persian; what sentences say of scenes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from datamodules.captions.english import ENGLISH
from datamodules.captions.facts import CaptionLayout, Fact, facts_of
from datamodules.captions.persian import PERSIAN
from datamodules.scenes.records import SceneSettings, make_scenes
from lightning_modules.captioning.baselines import best_constant, most_like_the_others, nearest_captions
from lightning_modules.captioning.judging import cells_on, hits, judge, named_words, object_masks
from lightning_modules.captioning.scores import (
    CiderD,
    bleu,
    bleu_4_of,
    bleu_counts,
    bleu_paper,
    bleu_signature,
    cider_d,
    rouge_l,
    without_punctuation,
)

SAID = ["a dog runs on the green grass", "two men play", "a red car", "a dog"]
TRUE = [
    ["a brown dog runs on the green grass", "a dog runs on grass"],
    ["two men play football on a field", "men play a game"],
    ["a red car drives", "the red car is parked", "a car"],
    ["a dog sleeps on the sofa", "a dog lies down"],
]


def by_the_formula(order: int) -> tuple[float, float]:
    """BLEU and its brevity penalty: clipped precisions over the corpus, the nearest reference's length."""
    right, total, said, true = np.zeros(order), np.zeros(order), 0, 0
    for sentence, references in zip(SAID, TRUE, strict=True):
        words, others = sentence.split(), [reference.split() for reference in references]
        said += len(words)
        true += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, order + 1):
            grams = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in [words, *others]]
            right[n - 1] += sum(min(count, max(own[gram] for own in grams[1:])) for gram, count in grams[0].items())
            total[n - 1] += max(0, len(words) - n + 1)
    brevity = min(1.0, math.exp(1 - true / said))
    return float(np.exp(np.log(right / total).mean())) * brevity, brevity


def test_bleu_is_the_formula():
    found, paper = bleu(SAID, TRUE), bleu_paper(SAID, TRUE)
    for order in (1, 2, 3, 4):
        expected, brevity = by_the_formula(order)
        assert brevity < 1 and found[f"bleu_{order}"] == pytest.approx(expected, rel=1e-9)
        assert paper[f"bleu_{order}_paper"] == pytest.approx(expected / brevity, rel=1e-9)
    counts = bleu_counts(SAID, TRUE)
    assert bleu_4_of(counts) == pytest.approx(found["bleu_4"], rel=1e-9)
    assert bleu_4_of(counts[1:]) == 0.0 and "nrefs:2|case:mixed|eff:no|tok:none" in bleu_signature(
        [["a b", "b"], ["c", "d"]]
    )
    assert bleu(["x"], [["a", "b"]])["bleu_4"] == 0.0 and bleu(TRUE[0][:1], TRUE[:1])["bleu_4"] == pytest.approx(1.0)


def test_cider_d_is_pycocoevalcaps():
    cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider
    truth, said = dict(enumerate(TRUE)), {number: [text] for number, text in enumerate(SAID)}
    mean, rows = cider().compute_score(truth, said)
    found = cider_d(SAID, TRUE)
    np.testing.assert_allclose(found, rows, atol=1e-6)
    assert found.mean() == pytest.approx(mean, abs=1e-6) and found[0] > found[3]


def test_persian_is_like_itself():
    sentence = PERSIAN.sentence(Fact("three", ((0, 3), (1, 1), (2, 9))), 0)
    assert "\u200c" in sentence
    assert rouge_l([sentence], [[sentence]]) == 1 and bleu([sentence], [[sentence]])["bleu_4"] == pytest.approx(1)
    assert rouge_l(["a b c"], [["a x c", "y"]]) == pytest.approx(2 / 3)


def test_punctuation_that_stands_alone_is_left_out_of_english():
    assert without_punctuation("a tri-colored dog , a ball -- and ' .", "en") == "a tri-colored dog a ball and"
    assert without_punctuation("سمت چپ ، راست", "fa") == "سمت چپ ، راست"


# Scenes


def test_what_sentences_say():
    one, two = Fact("one", ((0, 5),), (0, 1)), Fact("left", ((0, 5), (2, 7)))
    said = [ENGLISH.sentence(one, 3), "a red four at the top right", "a red five",
            "a blue seven to the left of a red five",
            "a red five above a blue seven", ENGLISH.sentence(one, 0), ENGLISH.sentence(two, 2)]  # fmt: skip
    found = judge(said, [one, one, one, two, two, two, two], ENGLISH)
    assert found["parsed"].tolist() == [1, 1, 0, 1, 1, 1, 1] and found["exact"].tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert found["digit"].tolist() == [1, 0, 0, 0, 1, 0.5, 1] and found["colour"].tolist() == [1, 1, 0, 0, 1, 0.5, 1]
    assert found["place"].tolist() == [1, 1, 0, 0, 0, 0, 1] and found["count"].tolist() == [1, 1, 0, 1, 1, 0, 1]


def test_cells_on_digits_by_hand():
    masks = np.zeros((1, 3, 8, 8), bool)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 7] = True
    on = cells_on(masks, 4, 4)[0]
    grid = on[0].reshape(4, 4)
    assert grid[0, 0] and not grid[0, 3] and not grid[3].any() and on[1].reshape(4, 4)[0, 3] and not on[2].any()


@pytest.mark.parametrize("grammar", [ENGLISH, PERSIAN], ids=["en", "fa"])
def test_attention_on_the_named_digit_is_a_hit(grammar):
    scenes = make_scenes(SceneSettings((1, 3), (0.16, 0.36), 30.0, 1.0, 2.0, 0, 0), CaptionLayout(), "test", 0, 12)
    facts = facts_of(scenes)
    words, on = named_words(facts, scenes, grammar), cells_on(object_masks(scenes, 64), 8, 8)
    there = words[:, :, 0] >= 0
    assert (there.sum(1) == scenes.count).all() and on.any(2)[scenes.there()].all()
    weights = torch.zeros(12, 30, 64)
    for row, place in zip(*there.nonzero(), strict=True):
        number, colour, digit = words[row, place]
        sentence = grammar.sentence(facts[row], 0).split(" ")
        assert grammar.colours[scenes.colour[row, number]] == sentence[colour] and colour != digit
        cell = on[row, number].argmax()
        weights[row, colour, cell] = 1.0
    hit, mass, chance = hits(weights, words[:, :, :2], on)
    assert (hit[there] == 1).all() and (mass[there] == 1).all() and np.isnan(hit[~there]).all()
    assert (chance[there] < 0.5).all() and (chance[there] > 0).all()


# Baselines


def test_baselines():
    captions = [["a dog runs", "a dog runs fast", "the sea"], ["a dog sits", "a dog runs"], ["blue sky", "the sky"]]
    assert best_constant([["a dog"]] * 5 + [["a cat"]]) == "a dog"
    assert most_like_the_others(captions[0], CiderD(captions)) in captions[0][:2]
    features = np.eye(3)
    found = nearest_captions(features[[2, 0]] * 7 + 0.1, features, captions)
    assert found[0] in captions[2] and found[1] in captions[0]
