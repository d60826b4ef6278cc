"""Captions in English."""

from __future__ import annotations

from datamodules.captions.grammar import Grammar

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_words(colour: int, digit: int) -> str:
    """“a red five”; “a red digit one”, since “a red one” reads as a pronoun."""
    return f"a {COLOURS[colour]} {'digit ' if digit == 1 else ''}{DIGITS[digit]}"


ENGLISH = Grammar(
    name="en",
    digit=digit_words,
    colours=COLOURS,
    vertical=("top", "bottom"),
    horizontal=("left", "right"),
    templates={
        "one": (
            "{0} at the {vertical} {horizontal}",
            "there is {0} at the {vertical} {horizontal}",
            "at the {vertical} {horizontal} there is {0}",
            "one digit : {0} , {vertical} {horizontal}",
            "in the {vertical} {horizontal} of the image you see {0}",
        ),
        "left": (
            "on the left is {0} , on the right is {1}",
            "{0} to the left of {1}",
            "two digits : {0} on the left and {1} on the right",
            "to the right of {0} there is {1}",
            "right of the picture : {1} , left : {0}",
        ),
        "above": (
            "at the top is {0} , at the bottom is {1}",
            "{0} above {1}",
            "two digits : {0} at the top and {1} at the bottom",
            "under {0} there is {1}",
            "bottom of the picture : {1} , top : {0}",
        ),
        "three": (
            "from left to right : {0} , {1} and {2}",
            "right to left : {2} , {1} and {0}",
            "three digits : {0} , {1} , {2}",
            "in the middle is {1} , left {0} , right {2}",
            "{0} on the left , {1} in the middle and {2} on the right",
        ),
    },
)
