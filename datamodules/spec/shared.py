"""What all kinds of spec share."""

from __future__ import annotations

from typing import TypeVar

from datamodules.errors import UsageError

Kind = TypeVar("Kind")


class WithImages:
    """What is true of any images."""

    channels: int
    height: int
    width: int

    @property
    def dims(self) -> int:
        """Sub-pixels of one image: the D of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def as_tuples(spec: object, *names: str) -> None:
    """Makes tuples of these fields: Hydra and checkpoints make lists of them."""
    for name in names:
        object.__setattr__(spec, name, tuple(getattr(spec, name)))


def required(spec: object, kind: type[Kind], need: str, advice: str) -> Kind:
    """`spec` itself when it is of this kind.

    Raises:
        UsageError: it is of another; says the need, what the data is, and what to choose.
    """
    if not isinstance(spec, kind):
        raise UsageError(f"{need}, but the data is {kind_of(spec)}: {advice}.")
    return spec


def kind_of(spec: object) -> str:
    """The spec's class with its article, for a sentence."""
    kind = type(spec).__name__
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
