"""Images moved, scaled and lit a little: what a sentence says of them stays true."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError


class Moved(NamedTuple):
    """Draws for each image of a batch where it is moved, by how much scaled and lit, and does so.

    shift: most pixels, across and down.
    scale: most by which it becomes larger or smaller about its middle: 0.1 for 0.9 to 1.1 times.
    light: most that is added, a share of the levels, and by which contrast is stretched: 0.15 for 0.85 to 1.15 times.
    """

    shift: float = 0.0
    scale: float = 0.0
    light: float = 0.0

    def checked(self) -> Moved:
        """Itself.

        Raises:
            UsageError: a number is impossible.
        """
        for name, most in {"shift": 1024, "scale": 0.5, "light": 1}.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(f"data.{name} is {value}, but it must be a number from 0 to {most}.")
        return self

    def __call__(self, images: np.ndarray, rng: np.random.Generator, levels: int = 256) -> np.ndarray:
        """Images (B, C, H, W) → as many of the same type; bilinear, outside of them their edge goes on."""
        items, _, height, width = images.shape
        factor = rng.uniform(1 - self.scale, 1 + self.scale, items)
        offset = rng.uniform(-self.shift, self.shift, (items, 2)) * 2 / (width, height)
        added, contrast = rng.uniform(-self.light, self.light, (2, items, 1, 1, 1)) * [[[[[levels - 1]]]], [[[[1]]]]]
        # From where each pixel of the result is read, in −1 … 1: x′ = (x − offset) / factor.
        theta = np.zeros((items, 2, 3))
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor
        theta[:, :, 2] = -offset / factor[:, None]
        grid = F.affine_grid(torch.from_numpy(theta).float(), list(images.shape), align_corners=False)
        x = torch.from_numpy(images).float()
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False).numpy()
        mean = x.mean((1, 2, 3), keepdims=True)
        x = (x - mean) * (1 + contrast) + mean + added
        return np.rint(x).clip(0, levels - 1).astype(images.dtype)
