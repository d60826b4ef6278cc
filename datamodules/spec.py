"""What a dataset is, in the few numbers a network needs: all that passes between data and network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from datamodules.errors import UsageError


@dataclass(frozen=True)
class ImageSpec:
    """Images (channels, height, width) of integer intensities 0 … levels−1; `classes` is 0 without labels.

    Where classes lie in superclasses and these in groups, `supers` and `groups` (classes,) have those of each class.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int = 0
    supers: tuple[int, ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("supers", "groups"):  # Hydra and checkpoints make lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def dims(self) -> int:
        """Sub-pixels of one image: the D of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


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


Spec = ImageSpec | TextSpec
KINDS: dict[str, type] = {"images": ImageSpec, "text": TextSpec}


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Plain containers only, so that a checkpoint loads with `weights_only=True`."""
    kind = next(name for name, cls in KINDS.items() if isinstance(spec, cls))
    return {"kind": kind, **asdict(spec)}


def spec_from_dict(record: dict[str, Any]) -> Spec:
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)


def require_text(spec: Spec, network: str) -> TextSpec:
    """`spec` itself when it describes text.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, TextSpec):
        kind = type(spec).__name__
        raise UsageError(f"{network} models text, but the data is an {kind}: choose text, e.g. data=pydocs.")
    return spec


def require_images(spec: Spec, network: str) -> ImageSpec:
    """`spec` itself when it describes images.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, ImageSpec):
        kind = type(spec).__name__
        raise UsageError(f"{network} models images, but the data is a {kind}: choose image data, e.g. data=digits.")
    return spec
