"""What a student is trained on: a generator's images, or, in controls, others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.images.shared.image import Split
from datamodules.spec import ImageSpec
from lightning_modules.classification.network import Classifier

GENERATED = ("generator", "frozen")
REAL = ("real", "hinton", "labels")
INPUTS = (*GENERATED, "noise", "other", *REAL)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Source:
    """Real images to draw from with replacement: normalised images and their labels.

    Args:
        split: images and labels.
        spec: what they are.
        wanted: what the networks take: the images are made so.
        mean, sd: (C, 1, 1), by which images scaled to 0 … 1 are normalised; they say on which device.
    """

    def __init__(self, split: Split, spec: ImageSpec, wanted: ImageSpec, mean: Tensor, sd: Tensor):
        self.images, self.labels, self.spec, self.wanted = split.images, split.labels, spec, wanted
        self.mean, self.sd = mean, sd

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images (count, C, H, W) and labels (count,); by the global random state, which a checkpoint keeps, or by a
        generator's."""
        rows = torch.randint(len(self.images), (count,), generator=generator).numpy()
        images = torch.from_numpy(np.array(self.images[rows])).to(self.mean.device)
        labels = torch.from_numpy(np.array(self.labels[rows]).astype(np.int64)).to(self.mean.device)
        return (as_wanted(images, self.spec, self.wanted) - self.mean) / self.sd, labels


def as_wanted(images: Tensor, spec: ImageSpec, wanted: ImageSpec) -> Tensor:
    """Integer images of one spec as another's, from 0 to 1: grey or colour, and resized."""
    x = images.float() / (spec.levels - 1)
    if (spec.channels, wanted.channels) == (3, 1):
        x = torch.einsum("bchw,c->bhw", x, x.new_tensor(GREY))[:, None]
    elif spec.channels != wanted.channels:
        x = x.mean(1, keepdim=True).expand(-1, wanted.channels, -1, -1)
    if x.shape[2:] != (wanted.height, wanted.width):
        x = F.interpolate(x, (wanted.height, wanted.width), mode="bilinear", antialias=True)
    return x


def pictures(x: Tensor, network: Classifier) -> np.ndarray:
    """Normalised images as integers 0 … levels−1 to be shown: clamp(x·sd + mean)."""
    shown = (x.float() * network.sd + network.mean).clamp(0, 1)
    return (shown * (network.spec.levels - 1)).round().to(torch.uint8).cpu().numpy()
