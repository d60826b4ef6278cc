"""What the task asks of a network."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_images
from reporting.report import Section


class Shown(NamedTuple):
    """Test images (N, C, H, W) that a report shows inside the network, a caption for each, and the run's folder."""

    images: np.ndarray
    captions: list[str]
    folder: Path


class Classifier(nn.Module):
    """Images (B, C, H, W) → logits (B, classes).

    A network says which sizes it takes (`takes`, and in words `sizes`) and what a report shows of its inside
    (`sections`). One that can begin from filters made of the training images has `whiten_(images)`.

    Args:
        spec: the images and their classes.
        name: of the network, for messages.

    Raises:
        UsageError: the data has no images or no classes.
    """

    sizes: str

    def __init__(self, spec: Spec, name: str):
        super().__init__()
        self.spec = require_images(spec, name)
        if spec.classes < 2:
            raise UsageError(
                "This data has no classes to tell apart: choose data=digits, data=cifar10, or data=mnist with "
                "data.binarize=none."
            )

    def takes(self, height: int, width: int) -> bool:
        """Can images of this size be classified?"""
        raise NotImplementedError

    def sections(self, shown: Shown) -> list[Section]:
        """What a report shows of the network's inside; pictures go into `shown.folder / "figures"`."""
        return []

    def scaled(self, images: Tensor) -> Tensor:
        """Intensities (B, C, H, W), integers or floats 0 … levels−1 → floats 0 … 1; sizes may differ from the spec's.

        Raises:
            UsageError: the images have other channels than the network's, or a size that it cannot take.
        """
        channels, height, width = images.shape[1:]
        if channels != self.spec.channels or not self.takes(height, width):
            raise UsageError(
                f"The images are {kind(channels)} of {height}×{width}, but this network takes "
                f"{kind(self.spec.channels)} ones of {self.sizes}: convert them, or train a network on such images."
            )
        # Divided in float32: half precision would round intensities that are not powers of two.
        return images.float() / (self.spec.levels - 1)


def kind(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")


def require_least(least: int, **settings: int) -> None:
    """Raises UsageError when a setting of the network is below `least`."""
    for name, value in settings.items():
        if value < least:
            raise UsageError(f"model.{name} is {value}, but it must be {least} or more.")


def require_share(**settings: float) -> None:
    """Raises UsageError when a setting of the network is not from 0 up to 1."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise UsageError(f"model.{name} is {value}, but it must be from 0 up to, not including, 1.")
