"""What a student is trained on: a generator's images, or, in controls, others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.image import Split
from datamodules.spec import ImageSpec

GENERATED = ("generator", "frozen")
REAL = ("real", "labels")
INPUTS = (*GENERATED, "noise", "other", *REAL)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


def noise_of(count: int, latent: int, device: torch.device) -> Tensor:
    """z ~ N(0, I) (count, latent), from the global random state, which a checkpoint keeps."""
    return torch.randn(count, latent, device=device)


class Source(nn.Module):
    """Real images to draw from with replacement, by the global random state: normalised images and labels.

    Args:
        split: images and labels.
        spec: what they are.
        wanted: what the networks take: the images are made so.
        mean, sd: (C, 1, 1), by which images scaled to 0 … 1 are normalised.
    """

    def __init__(self, split: Split, spec: ImageSpec, wanted: ImageSpec, mean: Tensor, sd: Tensor):
        super().__init__()
        self.images, self.labels, self.spec, self.wanted = split.images, split.labels, spec, wanted
        self.mean, self.sd = mean, sd

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Images (count, C, H, W) and labels (count,)."""
        rows = torch.randint(len(self.images), (count,)).numpy()
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


def pictures(x: Tensor, spec: ImageSpec, statistics: Mapping[str, Tensor]) -> np.ndarray:
    """Normalised images as integers 0 … levels−1 to be shown: clamp(x·sd + mean)."""
    shown = (x.float().cpu() * statistics["sd"].cpu() + statistics["mean"].cpu()).clamp(0, 1)
    return (shown * (spec.levels - 1)).round().to(torch.uint8).numpy()
