"""Persian and Arabic text brought into one form, so that equal words are equal strings.

U+200C, the zero-width non-joiner, is part of a Persian word (می‌شود is one token). Python's `\\w+` splits there, and
`str.split` and `strip` do not see it: captions are split at blanks alone.
"""

from __future__ import annotations

import re
import unicodedata

ZWNJ = "\u200c"
RIGHT_TO_LEFT = ("fa", "ar")
FORMS = re.compile("[\ufb50-\ufd3d\ufd50-\ufdfb\ufe70-\ufefc]")  # letters in the shapes of their places
DROPPED = re.compile(
    "[\u0640\u064b-\u0652\u0670\u00ad\u061c\u200b\u200d-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)  # tatweel, vowel signs, and signs without a width
HEH_YEH = re.compile("[\u06c0\u06c2]|[\u0647\u06d5\u06be\u06c1]\u0654")  # خانهٔ: NFC does not compose U+0647 U+0654
PERSIAN = str.maketrans(
    {"ي": "ی", "ى": "ی", "ك": "ک"} | {chr(0x660 + digit): chr(0x6F0 + digit) for digit in range(10)}
)
SIGNS = re.compile('[.,:;!?"()«»،؛؟]')
AT_AN_EDGE = re.compile(rf"(?<!\S){ZWNJ}+|{ZWNJ}+(?!\S)")


def normalise(text: str, language: str) -> str:
    """Text with one form for each letter, signs set apart and one blank between words. Twice is the same as once.

    English is only lower-cased and split at blanks. Arabic keeps its own yeh, kaf and digits.
    """
    if language not in RIGHT_TO_LEFT:
        return " ".join(text.lower().split())
    text = FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]).replace(" ", ""), text)
    text = unicodedata.normalize("NFC", DROPPED.sub("", text))
    if language == "fa":
        text = HEH_YEH.sub(f"ه{ZWNJ}ی", text).translate(PERSIAN)
    text = SIGNS.sub(r" \g<0> ", text)
    text = AT_AN_EDGE.sub("", re.sub(f"{ZWNJ}+", ZWNJ, text))
    return " ".join(text.split())


def join(tokens: list[str]) -> str:
    """What `text.split(" ")` of a normalised text divided, as it was."""
    return " ".join(tokens)
