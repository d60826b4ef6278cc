"""Images, with labels or without."""

from __future__ import annotations

from dataclasses import dataclass, field

from datamodules.spec.shared import WithImages, as_tuples, required


@dataclass(frozen=True)
class ImageSpec(WithImages):
    """Images (channels, height, width) of integer intensities 0 … levels−1; `classes` is 0 without labels.

    Where classes lie in superclasses and these in groups, `supers` and `groups` (classes,) have those of each class.
    `names` (classes,) are the classes' own, where a network may read them; specs are equal without them.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int = 0
    supers: tuple[int, ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = field(default=(), repr=False, compare=False)  # checkpoints older than it have none

    def __post_init__(self) -> None:
        as_tuples(self, "supers", "groups", "names")


def require_images(spec: object, network: str) -> ImageSpec:
    """`spec` itself when it describes images.

    Raises:
        UsageError: it describes something else.
    """
    return required(spec, ImageSpec, f"{network} models images", "choose image data, e.g. data=digits")
