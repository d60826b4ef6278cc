"""What a dataset is, in the few numbers a network needs: all that passes between data and network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from datamodules.errors import UsageError


@dataclass(frozen=True)
class ImageSpec:
    """Images (channels, height, width) of integer intensities 0 … levels−1; `classes` is 0 without labels."""

    channels: int
    height: int
    width: int
    levels: int
    classes: int = 0

    @property
    def dims(self) -> int:
        """Sub-pixels of one image: the D of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class TextSpec:
    """Text over a vocabulary: character i of `vocabulary` has code i."""

    vocabulary: str


Spec = ImageSpec | TextSpec
KINDS: dict[str, type] = {"images": ImageSpec, "text": TextSpec}


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Plain containers only, so that a checkpoint loads with `weights_only=True`."""
    kind = next(name for name, cls in KINDS.items() if isinstance(spec, cls))
    return {"kind": kind, **asdict(spec)}


def spec_from_dict(record: dict[str, Any]) -> Spec:
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)


def require_images(spec: Spec, network: str) -> ImageSpec:
    """`spec` itself when it describes images.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, ImageSpec):
        kind = type(spec).__name__
        raise UsageError(f"{network} models images, but the data is a {kind}: choose image data, e.g. data=digits.")
    return spec
