"""Persian and Arabic text: one form, stable, words never merged, tokens that join back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.captions.normalise import ZWNJ, join, normalise
from datamodules.captions.words import GRAMMARS

NASTY = st.text(
    st.sampled_from(
        "ابپآيىیكکهةۀۂەھہ\u0654\u0655\u064b\u0651\u0670ـ٣۳4. ,،؛؟«»()\u200c\u200c"
        "\u200b\u200d\u200e\u200f\u202b\u2067\ufeff\u00ad\u00a0\u2003\t\nﻻﷲﷺﯽﹰﺂabZ"
    ),
    max_size=12,
)


@settings(max_examples=1500, deadline=None)
@given(NASTY, st.sampled_from(["fa", "ar"]))
def test_twice_is_once(text, language):
    once = normalise(text, language)
    assert normalise(once, language) == once
    tokens = once.split(" ")
    assert join(tokens) == once and all(token.strip(ZWNJ) == token for token in tokens)


@settings(max_examples=500, deadline=None)
@given(st.lists(NASTY.filter(lambda text: normalise(text, "fa")), max_size=4), st.sampled_from(["fa", "ar"]))
def test_words_are_never_merged(words, language):
    apart = [normalise(word, language) for word in words]
    assert normalise(" ".join(words), language) == " ".join(filter(None, apart))


@pytest.mark.parametrize(
    ("given", "fa", "ar"),
    [
        ("می\u200cشود", "می\u200cشود", "می\u200cشود"),
        ("\u200cمی\u200c\u200cشود\u200c ", "می\u200cشود", "می\u200cشود"),
        ("خانه\u0654 ما", "خانه\u200cی ما", "خانه\u0654 ما"),
        ("كتابي ٣", "کتابی ۳", "كتابي ٣"),
        ("سلام،دنیا.", "سلام ، دنیا .", "سلام ، دنیا ."),
        ("بَــلَد", "بلد", "بلد"),
        ("ﻻ", "لا", "لا"),
    ],
)
def test_by_hand(given, fa, ar):
    assert normalise(given, "fa") == fa and normalise(given, "ar") == ar


def test_english_is_lower_case_and_nothing_else():
    assert normalise("A  dog's tri-colored Ball .", "en") == "a dog's tri-colored ball ."


def test_the_grammars_words_are_in_this_form():
    for name, grammar in GRAMMARS.items():
        assert all(normalise(word, name) == word for word in grammar.words)
