"""Text over a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.spec.shared import required


@dataclass(frozen=True)
class TextSpec:
    """Text over a vocabulary. Of characters (`unit` "char"): character i of `vocabulary` has code i. Of words ("word"):
    the words of `vocabulary`, which stand between blanks, have the codes 0, 1, 2 …"""

    vocabulary: str
    unit: str = "char"

    @property
    def tokens(self) -> list[str]:
        """The character or word of each code."""
        return list(self.vocabulary) if self.unit == "char" else self.vocabulary.split(" ")

    def __str__(self) -> str:
        shown = "".join(self.tokens[:200]) if self.unit == "char" else " ".join(self.tokens[:20])
        return f"text over {len(self.tokens):,} {self.unit}s ({shown[:60]!r} …)"


def require_text(spec: object, network: str) -> TextSpec:
    """`spec` itself when it describes text.

    Raises:
        UsageError: it describes something else.
    """
    return required(spec, TextSpec, f"{network} models text", "choose text, e.g. data=pydocs")
