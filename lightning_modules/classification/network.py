"""What the task asks of a network."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
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

    With `normalise` each channel of the scaled images is given mean 0 and standard deviation 1, by the training images'
    `mean` and `sd` (C, 1, 1), which are kept with the weights; `learn_statistics_` takes them.

    Args:
        spec: the images and their classes.
        name: of the network, for messages.
        normalise: see above; False: images are scaled to 0 … 1, and that is all.

    Raises:
        UsageError: the data has no images or no classes.
    """

    sizes: str

    def __init__(self, spec: Spec, name: str, normalise: bool = False):
        super().__init__()
        self.spec = require_images(spec, name)
        if spec.classes < 2:
            raise UsageError(
                "This data has no classes to tell apart: choose data=digits, data=cifar10, or data=mnist with "
                "data.binarize=none."
            )
        self.normalise = normalise
        if normalise:
            self.register_buffer("mean", torch.zeros(spec.channels, 1, 1))
            self.register_buffer("sd", torch.ones(spec.channels, 1, 1))

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
        scaled = (images if images.dtype == torch.float64 else images.float()) / (self.spec.levels - 1)
        return (scaled - self.mean) / self.sd if self.normalise else scaled

    def learn_statistics_(self, images: Tensor) -> None:
        """Mean and standard deviation of each channel over images (N, C, H, W), integers 0 … levels−1.

        They are exact: counted level by level.
        """
        levels = torch.arange(self.spec.levels, dtype=torch.float64) / (self.spec.levels - 1)
        for channel in range(self.spec.channels):
            counts = torch.bincount(images[:, channel].flatten().long(), minlength=self.spec.levels).double()
            mean = (counts * levels).sum() / counts.sum()
            variance = (counts * (levels - mean).square()).sum() / counts.sum()
            self.mean[channel], self.sd[channel] = mean, variance.sqrt().clamp(min=1e-6)

    def forward_normalised(self, x: Tensor) -> Tensor:
        """Logits of images whose channels were given mean 0 and standard deviation 1 (B, C, H, W).

        They may stand for intensities below 0 or above levels−1. Of a network without `normalise` x is from 0 to 1.
        """
        return self((x * self.sd + self.mean if self.normalise else x) * (self.spec.levels - 1))


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
