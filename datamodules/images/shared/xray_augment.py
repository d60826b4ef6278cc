"""Chest X-rays as they might have been taken otherwise: a batch turned, moved, scaled, lighter or darker, and noisy."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean

KINDS = ("none", "xray")
DEGREES, SHIFT, SCALE = 7.0, 0.05, 0.05  # either way; shift in shares of a side
LIGHT, CONTRAST, NOISE = 0.1, 0.1, 0.02  # shares of the range of intensities, the noise a standard deviation at most
MIRRORED = "training images are mirrored, which puts the heart on the right"


class XrayAugment:
    """What `data.augment` and `data.mirror` ask for.

    Args:
        kind: `none`; or `xray`: turned by up to ±7°, moved by ±5 % of a side, scaled by 0.95 to 1.05, brightness and
            contrast by ±10 %, noise of a standard deviation up to 2 % of the range. Never upside down or by a right
            angle, which no X-ray is.
        mirror: half of the images from left to right too.
    """

    def __init__(self, kind: str, mirror: bool):
        if kind not in KINDS:
            raise UsageError(f"data.augment is {kind!r}{did_you_mean(str(kind), KINDS)}: choose none or xray.")
        self.kind, self.mirror = kind, mirror

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Square images uint8 (B, C, H, H) → the same number, shape and type; `images` is not written to.

        Args:
            rng: a function of (seed, epoch, batch number).
        """
        if self.mirror:
            which = rng.random(len(images)) < 0.5
            images = np.where(which[:, None, None, None], images[..., ::-1], images)
        return images if self.kind == "none" else altered(images, rng)


def altered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """See `XrayAugment`; beyond an image's edge its edge goes on."""
    n = len(images)
    angle, size = np.radians(rng.uniform(-DEGREES, DEGREES, n)), rng.uniform(1 - SCALE, 1 + SCALE, n)
    shift = 2 * rng.uniform(-SHIFT, SHIFT, (n, 2))  # a side is 2 long to affine_grid
    light, contrast, noise = (255 * rng.uniform(-LIGHT, LIGHT, n), rng.uniform(1 - CONTRAST, 1 + CONTRAST, n),
                              255 * rng.uniform(0, NOISE, n))  # fmt: skip
    x = moved(torch.from_numpy(images).float(), angle, size, shift).numpy()
    of_each = (slice(None), None, None, None)
    middle = x.mean((1, 2, 3), keepdims=True)
    x = middle + contrast[of_each] * (x - middle) + light[of_each]
    x = x + noise[of_each] * rng.standard_normal(x.shape, np.float32)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def moved(x: torch.Tensor, angle: np.ndarray, size: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """Images (B, C, H, H) turned by `angle` (B,) in radians, scaled by `size` (B,) and moved by `shift` (B, 2)."""
    cos, sin = np.cos(angle) / size, np.sin(angle) / size  # from a place of the result to one of the image
    maps = np.stack([np.stack([cos, -sin, shift[:, 0]], 1), np.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(torch.from_numpy(maps).float(), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
