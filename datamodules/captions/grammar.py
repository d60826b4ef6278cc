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
    """Five templates of each kind of fact; {0}, {1}, {2} stand for the fact's digits, {vertical} and {horizontal} for
    where a single one is. Words and signs stand between single blanks.

    A decoder that chooses where to look before it knows what it last said must be able to tell which digit comes next:
    the templates of a kind that open with a digit open with the fact's first, and the others show the order before.

    Args:
        name: the language's, "en".
        digit: (colour, digit) → the words for one.
        vertical, horizontal: for top and bottom; for left and right.
        templates: by the kind of fact.
    """

    name: str
    digit: Callable[[int, int], str]
    vertical: tuple[str, str]
    horizontal: tuple[str, str]
    templates: Mapping[str, tuple[str, ...]]

    def sentence(self, fact: Fact, template: int) -> str:
        """What the template, 0 … 4, says of the fact."""
        bottom, right = fact.place or (0, 0)
        digits = (self.digit(*pair) for pair in fact.pairs)
        return self.templates[fact.kind][template].format(
            *digits, vertical=self.vertical[bottom], horizontal=self.horizontal[right]
        )

    def sentences(self, fact: Fact) -> list[str]:
        """All five: the references of an image."""
        return [self.sentence(fact, template) for template in range(TEMPLATES)]

    def parse(self, sentence: str) -> Fact | None:
        """The fact that a sentence tells; None where no template of the language reads so."""
        for kind, pattern in self._patterns:
            if found := pattern.fullmatch(sentence):
                parts = found.groupdict()
                pairs = tuple(self._pairs[parts[f"digit{place}"]] for place in range(MOST) if f"digit{place}" in parts)
                place = None
                if kind == "one":
                    place = self.vertical.index(parts["vertical"]), self.horizontal.index(parts["horizontal"])
                return Fact(kind, pairs, place)
        return None

    @cached_property
    def words(self) -> set[str]:
        """Every word and sign of any sentence."""
        templates = (word for known in self.templates.values() for line in known for word in line.split(" "))
        others = [*self._pairs, *self.vertical, *self.horizontal]
        return {word for word in templates if "{" not in word} | {word for text in others for word in text.split(" ")}

    @cached_property
    def longest(self) -> int:
        """Words and signs of the longest sentence."""
        digit = max((self.digit(*pair) for pair in PAIRS), key=lambda text: text.count(" "))
        words = {"vertical": self.vertical[0], "horizontal": self.horizontal[0]}
        lines = (line.format(*[digit] * MOST, **words) for known in self.templates.values() for line in known)
        return max(len(line.split(" ")) for line in lines)

    @cached_property
    def _pairs(self) -> dict[str, tuple[int, int]]:
        return {self.digit(*pair): pair for pair in PAIRS}

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        """Each template's kind, and what reads it."""
        either = {"vertical": self.vertical, "horizontal": self.horizontal}
        either |= {f"digit{place}": tuple(self._pairs) for place in range(MOST)}
        groups = {name: f"(?P<{name}>{'|'.join(map(re.escape, texts))})" for name, texts in either.items()}
        digits = [groups[f"digit{place}"] for place in range(MOST)]
        return [
            (kind, re.compile(line.format(*digits, **groups)))
            for kind, known in self.templates.items()
            for line in known
        ]
