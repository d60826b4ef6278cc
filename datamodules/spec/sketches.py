"""Drawings."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from datamodules.errors import UsageError
from datamodules.spec.shared import as_tuples, required


@dataclass(frozen=True)
class SketchSpec:
    """Drawings as sequences of pen strokes.

    The longest drawing trained on has `length` − 1 points; its end is one more (the papers' N_max). Offsets are divided
    by `scale`, in the data's own units. `names` are those of the `classes`, 0 where drawings have none.
    """

    length: int
    scale: float
    classes: int = 0
    names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        as_tuples(self, "names")

    def number(self, name: str) -> int:
        """The number of a class.

        Raises:
            UsageError: there is no such class.
        """
        if name in self.names:
            return self.names.index(name)
        if not self.names:
            raise UsageError(f"There is no class '{name}': this network was trained on drawings without classes.")
        near = get_close_matches(name, self.names, n=3, cutoff=0.5) or self.names[:8]
        raise UsageError(f"This network knows no class '{name}': the nearest it knows are {', '.join(near)}.")


def require_sketches(spec: object, network: str) -> SketchSpec:
    """`spec` itself when it describes drawings.

    Raises:
        UsageError: it describes something else.
    """
    return required(spec, SketchSpec, f"{network} models drawings", "choose drawings, e.g. data=doodles")
