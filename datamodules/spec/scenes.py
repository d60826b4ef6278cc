"""Images with masks or turned boxes."""

from __future__ import annotations

from dataclasses import dataclass, field

from datamodules.errors import UsageError
from datamodules.spec.shared import WithImages, as_tuples, required


@dataclass(frozen=True)
class SceneSpec(WithImages):
    """Images as in `ImageSpec`, each with a mask that gives every pixel a class, or with turned boxes around objects.

    Args:
        classes: how many, and the `names` of each; masks and boxes are numbered alike.
        ignore: the mask's value of pixels that nobody labelled, which count nowhere; −1: there are none.
        boxes: the most boxes an image has; 0: masks only.
        background: is class 0 whatever is no object? Masks have one then.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int
    names: tuple[str, ...]
    ignore: int = -1
    boxes: int = field(default=0, compare=False)  # a network for some images' boxes takes more
    background: bool = False

    def __post_init__(self) -> None:
        as_tuples(self, "names")
        if len(self.names) != self.classes:
            raise ValueError(f"{self.classes} classes have {len(self.names)} names")

    @property
    def masks(self) -> bool:
        """Have the images masks? Boxes alone come without a class for what is no object."""
        return self.background or not self.boxes


def require_scenes(spec: object, network: str) -> SceneSpec:
    """`spec` itself when it describes images with masks or boxes.

    Raises:
        UsageError: it describes something else.
    """
    need = f"{network} models scenes, images with masks or boxes"
    return required(spec, SceneSpec, need, "choose such data, e.g. data=digit_scenes")


def require_masks(spec: object, network: str) -> SceneSpec:
    """`spec` itself when it describes images with masks.

    Raises:
        UsageError: it describes something else, or images that have boxes only.
    """
    scenes = require_scenes(spec, network)
    if not scenes.masks:
        raise UsageError(
            f"{network} learns from masks, but this data has boxes only: choose data with masks, data=camvid or "
            "data=digit_scenes data.background=true."
        )
    return scenes


def require_boxes(spec: object, network: str) -> SceneSpec:
    """`spec` itself when it describes images with boxes.

    Raises:
        UsageError: it describes something else, or images that have masks only.
    """
    scenes = require_scenes(spec, network)
    if not scenes.boxes:
        raise UsageError(
            f"{network} learns from boxes, but this data has masks only: choose data with boxes, e.g. "
            "data=digit_scenes."
        )
    return scenes
