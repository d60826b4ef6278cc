"""A language of captions: its words, its sentences for a fact, and their reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from datamodules.captions.facts import MOST, PAIRS, Fact

TEMPLATES = 5  # of each kind of fact, in every language


@dataclass(frozen=True)
class Grammar:
    """Five templates of each kind of fact; {0}, {1}, {2} stand for the fact's digits, {other} for a single one in other
    words, {vertical} (before a noun {vertical_of}) and {horizontal} for where a single one is. Words and signs stand
    between single blanks.

    A decoder that chooses where to look before it knows what it last said must be able to tell which digit comes next:
    the templates of a kind that open with a digit open with the fact's first, and the others show the order before.

    Args:
        name: the language's, "en".
        digit: (colour, digit) → the words for one, of which one is the colour's.
        colours: the colours' words.
        vertical, horizontal: for top and bottom; for left and right.
        templates: by the kind of fact.
        other_digit: as `digit`, in other words.
        vertical_of: “the top of …”, where a language has a form of its own for it.
    """

    name: str
    digit: Callable[[int, int], str]
    colours: tuple[str, ...]
    vertical: tuple[str, str]
    horizontal: tuple[str, str]
    templates: Mapping[str, tuple[str, ...]]
    other_digit: Callable[[int, int], str] | None = None
    vertical_of: tuple[str, str] | None = None

    def sentence(self, fact: Fact, template: int) -> str:
        """What the template, 0 … 4, says of the fact."""
        return self.templates[fact.kind][template].format(
            *(self.digit(*pair) for pair in fact.pairs), **self._where(fact), other=self._other(*fact.pairs[0])
        )

    def _where(self, fact: Fact) -> dict[str, str]:
        bottom, right = fact.place or (0, 0)
        return {
            "vertical": self.vertical[bottom],
            "vertical_of": (self.vertical_of or self.vertical)[bottom],
            "horizontal": self.horizontal[right],
        }

    def _other(self, colour: int, digit: int) -> str:
        return (self.other_digit or self.digit)(colour, digit)

    def word_places(self, fact: Fact, template: int) -> list[tuple[int, int]]:
        """Of each of the fact's digits, in the fact's order: which word of the sentence, from 0, is its colour's, and
        which its own, the last of those for it that are not the colour's. Templates with {other} have none."""
        line = self.templates[fact.kind][template].format(*(["{0}", "{1}", "{2}"]), **self._where(fact), other="{}")
        places: dict[int, tuple[int, int]] = {}
        position = 0
        for token in line.split(" "):
            if token not in ("{0}", "{1}", "{2}"):
                position += 1
                continue
            number = int(token[1])
            words = self.digit(*fact.pairs[number]).split(" ")
            colour = words.index(self.colours[fact.pairs[number][0]])
            digit = max(place for place in range(len(words)) if place != colour)
            places[number] = position + colour, position + digit
            position += len(words)
        return [places[number] for number in sorted(places)]

    def sentences(self, fact: Fact) -> list[str]:
        """All five: the references of an image."""
        return [self.sentence(fact, template) for template in range(TEMPLATES)]

    def parse(self, sentence: str) -> Fact | None:
        """The fact that a sentence tells; None where no template of the language reads so."""
        for kind, pattern in self._patterns:
            if found := pattern.fullmatch(sentence):
                parts = found.groupdict()
                pairs = tuple(self._pairs[parts[f"digit{place}"]] for place in range(MOST) if f"digit{place}" in parts)
                if "other" in parts:
                    pairs = (self._others[parts["other"]],)
                return Fact(kind, pairs, self._place(parts) if kind == "one" else None)
        return None

    def _place(self, parts: Mapping[str, str]) -> tuple[int, int]:
        if "vertical" in parts:
            bottom = self.vertical.index(parts["vertical"])
        else:
            bottom = (self.vertical_of or self.vertical).index(parts["vertical_of"])
        return bottom, self.horizontal.index(parts["horizontal"])

    @cached_property
    def words(self) -> set[str]:
        """Every word and sign of any sentence."""
        templates = (word for known in self.templates.values() for line in known for word in line.split(" "))
        others = [*self._pairs, *self._others, *self.vertical, *(self.vertical_of or ()), *self.horizontal]
        return {word for word in templates if "{" not in word} | {word for text in others for word in text.split(" ")}

    @cached_property
    def longest(self) -> int:
        """Words and signs of the longest sentence."""
        digit = max((self.digit(*pair) for pair in PAIRS), key=lambda text: text.count(" "))
        other = max((self._other(*pair) for pair in PAIRS), key=lambda text: text.count(" "))
        words = {"vertical": self.vertical[0], "vertical_of": "-", "horizontal": self.horizontal[0], "other": other}
        lines = (line.format(*[digit] * MOST, **words) for known in self.templates.values() for line in known)
        return max(len(line.split(" ")) for line in lines)

    @cached_property
    def _pairs(self) -> dict[str, tuple[int, int]]:
        return {self.digit(*pair): pair for pair in PAIRS}

    @cached_property
    def _others(self) -> dict[str, tuple[int, int]]:
        return {self._other(*pair): pair for pair in PAIRS}

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        """Each template's kind, and what reads it."""
        either = {"vertical": self.vertical, "horizontal": self.horizontal, "other": tuple(self._others)}
        either["vertical_of"] = self.vertical_of or self.vertical
        either |= {f"digit{place}": tuple(self._pairs) for place in range(MOST)}
        groups = {name: f"(?P<{name}>{'|'.join(map(re.escape, texts))})" for name, texts in either.items()}
        digits = [groups[f"digit{place}"] for place in range(MOST)]
        return [
            (kind, re.compile(line.format(*digits, **groups)))
            for kind, known in self.templates.items()
            for line in known
        ]
