"""Captions in Persian, in logical order; each word as `normalise` leaves it."""

from __future__ import annotations

from datamodules.captions.grammar import Grammar
from datamodules.captions.normalise import ZWNJ

COLOURS = ("قرمز", "سبز", "آبی", "زرد", "بنفش", "سفید")
DIGITS = ("صفر", "یک", "دو", "سه", "چهار", "پنج", "شش", "هفت", "هشت", "نه")
BEFORE_COLOUR = {2: "دوی", 3: f"سه{ZWNJ}ی"}  # after a vowel the ezafe is written; نه ends in a consonant
SEEN = f"دیده می{ZWNJ}شود"


def digit_words(colour: int, digit: int) -> str:
    """پنج آبی; سه‌ی سبز, with the ezafe."""
    return f"{BEFORE_COLOUR.get(digit, DIGITS[digit])} {COLOURS[colour]}"


def of_colour(colour: int, digit: int) -> str:
    """پنج به رنگ آبی, “five of blue colour”: without an ezafe."""
    return f"{DIGITS[digit]} به رنگ {COLOURS[colour]}"


PERSIAN = Grammar(
    name="fa",
    digit=digit_words,
    other_digit=of_colour,
    colours=COLOURS,
    vertical=("بالا", "پایین"),
    vertical_of=("بالای", "پایین"),
    horizontal=("چپ", "راست"),
    templates={
        "one": (
            "رقم {0} در {vertical} ، سمت {horizontal} تصویر است",
            "رقم {other} در سمت {horizontal} {vertical_of} تصویر است",
            f"تنها یک رقم {SEEN} : {{0}} در {{vertical}} سمت {{horizontal}}",
            f"در سمت {{horizontal}} {{vertical_of}} تصویر رقم {{0}} {SEEN}",
            "تصویر یک رقم دارد : {0} ، {vertical} سمت {horizontal}",
        ),
        "left": (
            "رقم {0} در سمت چپ رقم {1} است",
            "در سمت راست رقم {0} ، رقم {1} است",
            f"دو رقم {SEEN} : رقم {{0}} در سمت چپ و رقم {{1}} در سمت راست",
            "سمت چپ رقم {0} ، سمت راست رقم {1}",
            "سمت راست تصویر : رقم {1} ، سمت چپ : رقم {0}",
        ),
        "above": (
            "رقم {0} در بالای رقم {1} است",
            "در زیر رقم {0} ، رقم {1} قرار دارد",
            f"دو رقم {SEEN} : رقم {{0}} در بالا و رقم {{1}} در پایین",
            "بالا رقم {0} ، پایین رقم {1}",
            "پایین تصویر : رقم {1} ، بالا : رقم {0}",
        ),
        "three": (
            "از چپ به راست : رقم {0} ، رقم {1} و رقم {2}",
            "از راست به چپ : رقم {2} ، رقم {1} و رقم {0}",
            "سه رقم از چپ به راست : رقم {0} ، رقم {1} ، رقم {2}",
            "در وسط رقم {1} ، در چپ رقم {0} و در راست رقم {2}",
            "رقم {0} در سمت چپ ، رقم {1} در وسط و رقم {2} در سمت راست است",
        ),
    },
)
