"""Captions: facts without doubt, sentences that are read back, codes, and one sentence an item."""

from __future__ import annotations

from itertools import chain, permutations

import numpy as np
import pytest

from datamodules.captions.batches import OneSentence
from datamodules.captions.english import ENGLISH
from datamodules.captions.facts import (
    KINDS,
    PAIRS,
    CaptionLayout,
    Fact,
    fact_of,
    fact_of_row,
    facts_of,
    facts_of_one,
    facts_of_two,
    held_out,
)
from datamodules.captions.grammar import TEMPLATES
from datamodules.captions.words import (
    GRAMMARS,
    decode_sentence,
    encode_sentences,
    grammar_vocabulary,
    longest_sentence,
)
from datamodules.errors import UsageError
from datamodules.scenes.records import SceneSettings, make_scenes
from datamodules.spec import (
    CaptionSpec,
    ImageSpec,
    TextSpec,
    require_captions,
    require_images,
    require_text,
    spec_from_dict,
    spec_to_dict,
)

SETTINGS = SceneSettings((1, 3), (0.16, 0.36), 30.0, 1.0, 2.0, 0, 0)
SPEC = CaptionSpec(3, 16, 16, 256, grammar_vocabulary(["en"]), ("en",), longest_sentence(["en"]), ("a", "b"))
every_grammar = pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=list(GRAMMARS))


def some_of_three(count: int) -> list[Fact]:
    rng = np.random.default_rng(0)
    chosen = (rng.choice(len(PAIRS), 3, replace=False) for _ in range(count))
    return [Fact("three", tuple(PAIRS[number] for number in numbers)) for numbers in chosen]


def facts_of_one_or_two() -> list[Fact]:
    return [*chain(*map(facts_of_one, PAIRS)), *facts_of_two()]


# Facts


def test_there_are_240_facts_of_one_digit_and_7080_of_two_and_each_has_a_number():
    facts = facts_of_one_or_two()
    assert len(facts) == 240 + 7080
    facts += some_of_three(500)
    assert len({fact.number for fact in facts}) == len(set(facts)) and min(fact.number for fact in facts) == 0
    assert all(fact_of_row(fact.row) == fact and len(fact.row) == 9 for fact in facts)


@pytest.mark.parametrize(
    ("x", "y", "kind", "order", "place"),
    [
        ([0.2], [0.7], "one", [0], (1, 0)),
        ([0.7], [0.2], "one", [0], (0, 1)),
        ([0.8, 0.2], [0.5, 0.4], "left", [1, 0], None),
        ([0.5, 0.4], [0.2, 0.8], "above", [0, 1], None),
        ([0.5, 0.8, 0.2], [0.1, 0.9, 0.5], "three", [2, 0, 1], None),
    ],
)
def test_what_is_said_of_a_scene(x, y, kind, order, place):
    colours, digits = [4, 0, 2], [7, 1, 9]
    found = fact_of(len(x), colours, digits, x, y)
    assert found == Fact(kind, tuple((colours[n], digits[n]) for n in order), place)


@pytest.mark.parametrize("split", ["train", "test", "unseen"])
def test_scenes_are_without_doubt_and_held_out_pairs_in_unseen_alone(split):
    made = make_scenes(SETTINGS, CaptionLayout(), split, 0, 250)
    seen = set()
    for row, fact in enumerate(facts_of(made)):
        x, y = made.x[row, : made.count[row]], made.y[row, : made.count[row]]
        assert len(set(fact.pairs)) == len(x)
        assert sum(held_out(*pair) for pair in fact.pairs) == (split == "unseen")
        if len(x) == 1:
            assert abs(x[0] - 0.5) >= 0.08 and abs(y[0] - 0.5) >= 0.08
        elif len(x) == 2:
            smaller, larger = sorted((abs(x[0] - x[1]), abs(y[0] - y[1])))
            assert larger >= 1.5 * smaller
        else:
            assert np.diff(np.sort(x)).min() >= 0.2
        seen.add((fact.kind, fact.place))
    assert len(seen) == 4 + 3, "every kind, and every place of one digit"


def test_the_held_out_pairs_leave_every_digit_and_colour():
    left = [pair for pair in PAIRS if not held_out(*pair)]
    assert len(left) == 50 and {c for c, _ in left} == set(range(6)) and {d for _, d in left} == set(range(10))


# Sentences


def check_sentences(grammar, facts):
    """Every sentence is read back as its fact, and no two are alike."""
    count, told = 0, set()
    for fact in facts:
        for sentence in grammar.sentences(fact):
            assert grammar.parse(sentence) == fact, sentence
            told.add(sentence)
            count += 1
    assert len(told) == count


@every_grammar
def test_every_sentence_is_read_back_and_no_two_are_alike(grammar):
    check_sentences(grammar, [*facts_of_one_or_two(), *dict.fromkeys(some_of_three(300))])


@pytest.mark.slow
@every_grammar
def test_every_sentence_of_three_digits_is_read_back(grammar):
    check_sentences(grammar, (Fact("three", pairs) for pairs in permutations(PAIRS, 3)))


@every_grammar
def test_what_stands_before_the_first_digit_tells_which_it_is(grammar):
    assert set(grammar.templates) == set(KINDS) and all(len(own) == TEMPLATES for own in grammar.templates.values())
    for kind, templates in grammar.templates.items():
        first = {}
        for line in templates:
            before, _, after = line.partition("{")
            if kind != "one":
                assert first.setdefault(before, after[0]) == after[0]
        assert first.get("", "0") == "0", "those that open with a digit open with the fact's first"


@every_grammar
def test_words_and_longest_sentence(grammar):
    facts = [*facts_of_one_or_two(), *some_of_three(50), Fact("three", ((0, 1), (1, 1), (2, 1)))]
    sentences = [sentence.split(" ") for fact in facts for sentence in grammar.sentences(fact)]
    assert grammar.words == set(chain(*sentences)) and grammar.longest == max(map(len, sentences))


def test_english_by_hand():
    one, two = Fact("one", ((3, 1),), (0, 1)), Fact("above", ((0, 5), (5, 0)))
    assert ENGLISH.sentence(one, 0) == "a yellow digit one at the top right"
    assert ENGLISH.sentence(two, 3) == "under a red five there is a white zero"
    three = Fact("three", ((0, 5), (5, 0), (2, 2)))
    assert ENGLISH.sentence(three, 1) == "right to left : a blue two , a white zero and a red five"


@pytest.mark.parametrize(
    "sentence",
    ["", "a red five", "a red five above", "a red five above a pink two", "a yellow one at the top right",
     "a red five  above a blue two", "a red five above a blue two ."],
)  # fmt: skip
def test_what_no_template_says_is_not_read(sentence):
    assert ENGLISH.parse(sentence) is None


# Codes


def test_the_vocabulary_says_its_own_words_first():
    assert SPEC.vocabulary[:4] == ("<pad>", "<end>", "<unknown>", "<en>") and len(set(SPEC.vocabulary)) == 46
    assert (SPEC.pad, SPEC.end, SPEC.unknown, SPEC.start("en"), SPEC.length) == (0, 1, 2, 3, 25)
    with pytest.raises(UsageError, match=r"^There is no language 'fa' here: choose en\.$"):
        SPEC.start("fa")
    with pytest.raises(ValueError, match="begins with <pad> <end> <unknown> <en>"):
        CaptionSpec(3, 16, 16, 256, ("red", "five"), ("en",), 4)


def test_codes_and_back():
    sentences = ["a red five above a blue two", "a red banana", "the"]
    codes, lengths = encode_sentences(sentences, SPEC, "en")
    assert codes.shape == (3, 25) and lengths.tolist() == [9, 5, 3]
    assert (codes[:, 0] == SPEC.start("en")).all() and (codes[range(3), lengths - 1] == SPEC.end).all()
    assert all((row[length:] == SPEC.pad).all() for row, length in zip(codes, lengths, strict=True))
    assert codes[1, 3] == SPEC.unknown and SPEC.codes["red"] == codes[0, 2] == codes[1, 2]
    assert [decode_sentence(row, SPEC) for row in codes] == [sentences[0], "a red <unknown>", "the"]
    with pytest.raises(UsageError, match=r"has 24 words, but sentences here have at most 23\.$"):
        encode_sentences(["a " * 23 + "a"], SPEC, "en")


def test_one_sentence_of_each_item_is_a_function_of_seed_epoch_and_item():
    rows = np.array([7, 0, 31, 2])
    drawn = OneSentence(1).drawn(rows, 5, epoch=0)
    np.testing.assert_array_equal(OneSentence(1).drawn(rows[:2], 5, 0), drawn[:2], "whatever else is in the batch")
    every = np.arange(4000)
    first, second, other = (OneSentence(seed).drawn(every, 5, epoch) for seed, epoch in [(1, 0), (1, 1), (2, 0)])
    np.testing.assert_array_equal(first[rows], drawn)
    for one, two in [(first, second), (first, other)]:
        assert 0.15 < (one == two).mean() < 0.25
    assert np.bincount(first).min() > 700
    np.testing.assert_array_equal(OneSentence(None).drawn(rows, 5, 0), OneSentence(None).drawn(rows, 5, 3))


# Spec


def test_the_spec_survives_plain_containers_and_says_what_it_is():
    assert spec_from_dict(spec_to_dict(SPEC)) == SPEC and spec_to_dict(SPEC)["kind"] == "captions"
    assert SPEC.shape == (3, 16, 16) and SPEC.dims == 768
    assert str(SPEC) == ("captioned images of 3×16×16 with 256 levels, 46 words (en), at most 25 a sentence, 2 classes")


def test_networks_ask_for_their_kind_of_data():
    assert require_captions(SPEC, "CLIP") is SPEC
    for spec, said in [(ImageSpec(1, 8, 8, 17), "an ImageSpec"), (TextSpec("ab"), "a TextSpec")]:
        with pytest.raises(UsageError, match=f"^CLIP models images with captions, but the data is {said}: choose "):
            require_captions(spec, "CLIP")
    with pytest.raises(UsageError, match=r"the data is a CaptionSpec: choose image data, e\.g\. data=digits\.$"):
        require_images(SPEC, "The CNN")
    with pytest.raises(UsageError, match="the data is a CaptionSpec: choose text"):
        require_text(SPEC, "The LSTM")
