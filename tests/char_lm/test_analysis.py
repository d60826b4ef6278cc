"""Groups, places, units and quotation against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.text.vocabulary import character_spec, encode, word_spec
from lightning_modules.char_lm import analysis
from lightning_modules.char_lm.figures import COLUMNS, can_be_drawn, laid_out


@pytest.mark.parametrize(
    ("token", "name"),
    [("a", "small letter"), ("É", "capital"), ("7", "digit"), ("\n", "line end"), (" ", "space"), ("!", "punctuation"),
     ("月", "letter without case"), ("ب", "letter without case"), ("<unknown>", "unknown word"), ("the", "word")],
)  # fmt: skip
def test_what_a_token_is(token, name):
    assert analysis.token_class(token) == name


def test_means_by_class_and_by_place_in_a_word():
    text = "Ab cde\nf, Gh9"
    spec = character_spec(text)
    codes, nats = encode(text, spec), np.arange(len(text), dtype=float)
    places = analysis.word_places(codes, spec)
    assert places.tolist() == [1, 2, 0, 1, 2, 3, 0, 1, 0, 0, 1, 2, 3]
    groups = analysis.class_means(codes, nats, spec)
    assert groups["capital"] == (5.0, 2) and groups["space"] == (5.5, 2) and groups["digit"] == (12.0, 1)
    assert sum(count for _, count in groups.values()) == len(text) and next(iter(groups)) == "small letter"
    found = analysis.place_means(codes, nats, spec)
    assert found["1"] == ((0 + 3 + 7 + 10) / 4, 4) and found["3"] == ((5 + 12) / 2, 2)
    assert found["after"] == ((2 + 6 + 8) / 3, 3)


def test_long_words_are_one_group():
    spec = character_spec("abcdefghijklmn")
    found = analysis.place_means(np.arange(14), np.ones(14), spec)
    assert found["10+"] == (1.0, 5) and "after" not in found


def test_means_by_place_in_a_window_leave_the_rest_out():
    assert analysis.window_means(np.arange(11.0), 4).tolist() == [2, 3, 4, 5]
    assert not len(analysis.window_means(np.arange(3.0), 4))


def test_the_unit_that_follows_a_feature_is_found_whatever_its_sign():
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(500, 20))
    features = {"a ramp": np.arange(500.0), "a step": (np.arange(500) % 50 < 5).astype(float), "nothing": np.ones(500)}
    activations[:, 7] = -features["a ramp"] / 500
    activations[:, 3] = features["a step"] + 0.5 * rng.normal(size=500)
    (first, name, correlation), (second, other, _) = analysis.chosen_units(activations, features, 4)
    assert (first, name, second, other) == (7, "a ramp", 3, "a step") and correlation == pytest.approx(-1)


def test_line_features():
    features = analysis.line_features(list('ab\n"x" Y'))
    assert features["the place in the line"].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert features["quotation"].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert features["capitals"].tolist() == [0] * 7 + [1]


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_shared_runs_are_those_of_plain_search(length):
    rng = np.random.default_rng(0)
    source, text = rng.integers(0, 3, 200), rng.integers(0, 3, 60)
    known = {tuple(source[place : place + length]) for place in range(200 - length + 1)}
    wanted = np.mean([tuple(text[place : place + length]) in known for place in range(60 - length + 1)])
    found = analysis.shared_fractions({"text": [text], "itself": [source[20:90]]}, source, [length])
    assert found["text"] == [pytest.approx(wanted)] and found["itself"] == [1.0]


def test_the_longest_quotation_is_found():
    spec = character_spec("abcdefghijklmnopqrstuvwxyz ")
    source = encode("the quick brown fox jumps over the lazy dog", spec)
    texts = [encode(text, spec) for text in ("a quick brow", "my quick brown fox ran", "zzz")]
    number, start, length = analysis.longest_shared(texts, source)
    assert (number, length) == (1, len(" quick brown fox ")) and start == 2
    assert analysis.longest_shared([encode("zz", spec)], encode("ab", spec)) == (0, 0, 0)
    assert analysis.longest_shared(texts[:1], texts[0]) == (0, 0, len(texts[0]))


def test_lines_break_where_the_text_breaks_and_at_the_pictures_edge():
    places, rows = laid_out([*"ab", "\n", *"c" * (COLUMNS + 1)])
    assert places[:4] == [(0, 0), (0, 1), (0, 2), (1, 0)] and places[-1] == (2, 0) and rows == 3
    places, rows = laid_out(["x" * 60 + " ", "y" * 40 + " "])
    assert places == [(0, 0), (1, 0)] and rows == 2


@pytest.mark.parametrize(("text", "can"), [("To be ↵—é", True), ("آدم", False), ("月", False), ("a\nb", True)])
def test_scripts_that_a_picture_cannot_show_are_known(text, can):
    assert can_be_drawn(list(text)) == can


def test_words_have_classes_too():
    spec = word_spec("the cat , the dog", 3)
    codes = encode("the bird , cat", spec)
    assert set(analysis.class_means(codes, np.ones(4), spec)) == {"word", "unknown word", "punctuation"}
