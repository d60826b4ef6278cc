"""Defences in front of the network, and how an attack sees through them.

A rounding or a codec has no useful gradient, and an attack that follows it, or does not know it, fails: that is no
robustness. Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security" (arXiv 1802.00420), sections 4.1
(BPDA: forward through the defence, backward as if it were the identity) and 4.2 (EOT: the mean gradient over draws).
The defences: Xu et al. 2018, "Feature Squeezing" (arXiv 1704.01155); Guo et al. 2018 (arXiv 1711.00117).
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from lightning_modules.attacks.crafting import Forward
from lightning_modules.attacks.judging import judged


class Preprocessing(nn.Module):
    """Images in [0, 1] (N, C, H, W) → images; has a gradient if `differentiable`, draws at each call if `random`."""

    differentiable = True
    random = False


class BitDepth(Preprocessing):
    """Rounds intensities to 2^bits levels.

    Raises:
        UsageError: bits are not from 1 to 16.
    """

    differentiable = False

    def __init__(self, bits: int = 3):
        super().__init__()
        if not 1 <= bits <= 16:
            raise UsageError(f"bits is {bits}, but bit_depth needs 1 to 16 of them.")
        self.most = 2**bits - 1

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.most).round() / self.most


class Jpeg(Preprocessing):
    """Writes and reads each image as JPEG, in memory; grey or RGB.

    Raises:
        UsageError: the quality is not from 1 to 100, or, at the first call, images have other channels.
    """

    differentiable = False

    def __init__(self, quality: int = 75):
        super().__init__()
        if not 1 <= quality <= 100:
            raise UsageError(f"quality is {quality}, but jpeg takes 1 to 100.")
        self.quality = quality

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise UsageError(f"jpeg stores grey or RGB images, but these have {images.shape[1]} channels.")
        bytes_ = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
        read = np.stack([self.stored(image) for image in bytes_]) if len(bytes_) else bytes_
        return (torch.from_numpy(read).to(images) / 255).movedim(-1, 1)

    def stored(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) bytes, as they come back."""
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=self.quality)
        return np.asarray(Image.open(file)).reshape(image.shape)


class Median(Preprocessing):
    """The median of each size × size window, mirrored at the edges.

    Raises:
        UsageError: the size is not odd.
    """

    def __init__(self, size: int = 3):
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise UsageError(f"size is {size}, but a median's window has an odd one.")
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (self.size // 2,) * 4, mode="reflect")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        return windows.flatten(-2).median(-1).values


class Smooth(Preprocessing):
    """A Gaussian blur of standard deviation `sd` pixels, mirrored at the edges.

    Raises:
        UsageError: the deviation is not above 0.
    """

    def __init__(self, sd: float = 1.0):
        super().__init__()
        if not 0 < sd < math.inf:
            raise UsageError(f"sd is {sd}, but smooth needs one above 0.")
        self.sd = sd

    def forward(self, images: Tensor) -> Tensor:
        reach = min(math.ceil(3 * self.sd), *(side - 1 for side in images.shape[2:]))
        weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(images) / self.sd) ** 2)
        kernel = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
        padded = F.pad(images, (reach,) * 4, mode="reflect")
        across = F.conv2d(padded, kernel, groups=images.shape[1])
        return F.conv2d(across, kernel.mT, groups=images.shape[1])


class Noise(Preprocessing):
    """Adds N(0, sd²), anew at each call; `reseed` begins another stream.

    Raises:
        UsageError: the deviation is below 0.
    """

    random = True

    def __init__(self, sd: float = 0.1, seed: int = 0):
        super().__init__()
        if not 0 <= sd < math.inf:
            raise UsageError(f"sd is {sd}, but noise needs 0 or more.")
        self.sd, self.generator = sd, torch.Generator()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        self.generator.manual_seed(seed)

    def forward(self, images: Tensor) -> Tensor:
        drawn = torch.randn(images.shape, generator=self.generator, dtype=images.dtype)
        return images + self.sd * drawn.to(images.device)


class TotalVariation(Preprocessing):
    """The minimum over u of ½‖u − x‖² + weight · Σ |∇u|, each channel for itself.

    By Chambolle's projections (2004, "An Algorithm for Total Variation Minimization and Applications", section 3).

    Raises:
        UsageError: the weight is not above 0, or no rounds.
    """

    differentiable = False

    def __init__(self, weight: float = 0.1, rounds: int = 50):
        super().__init__()
        if not 0 < weight < math.inf or rounds < 1:
            raise UsageError(f"weight={weight}, rounds={rounds}: tv needs a weight above 0 and 1 or more rounds.")
        self.weight, self.rounds = weight, rounds

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        down, across = torch.zeros_like(images), torch.zeros_like(images)
        for _ in range(self.rounds):
            down_slope, across_slope = slopes(divergence(down, across) - images / self.weight)
            stretch = 1 + 0.25 * (down_slope**2 + across_slope**2).sqrt()
            down, across = (down + 0.25 * down_slope) / stretch, (across + 0.25 * across_slope) / stretch
        return images - self.weight * divergence(down, across)


def slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the pixel below and to the right, 0 at the last row and column."""
    return F.pad(images.diff(dim=2), (0, 0, 0, 1)), F.pad(images.diff(dim=3), (0, 1))


def divergence(down: Tensor, across: Tensor) -> Tensor:
    """Minus the adjoint of `slopes`."""
    down, across = down[:, :, :-1], across[..., :-1]
    vertical = F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0))
    return vertical + F.pad(across, (0, 1)) - F.pad(across, (1, 0))


PREPROCESSING: dict[str, type[Preprocessing]] = {
    "bit_depth": BitDepth,
    "jpeg": Jpeg,
    "median": Median,
    "smooth": Smooth,
    "noise": Noise,
    "tv": TotalVariation,
}


def preprocessing(name: str, **settings: Any) -> Preprocessing:
    """A defence by its name.

    Raises:
        UsageError: none has this name, or its settings are impossible.
    """
    if name not in PREPROCESSING:
        raise UsageError(f"preprocessing={name} is none of none, {', '.join(PREPROCESSING)}{_near(name)}.")
    return PREPROCESSING[name](**settings)


def _near(name: str) -> str:
    return did_you_mean(name, PREPROCESSING)


class _Identity(torch.autograd.Function):
    """Forward the second argument, backward to the first as it comes."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, changed: Tensor) -> Tensor:
        return changed.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def defended(forward: Forward, defence: Preprocessing, backward: str = "identity") -> Forward:
    """The network behind the defence: what is evaluated, and what an adaptive attack is given.

    Args:
        backward: `identity` (BPDA), or `true`: the defence's own gradient.

    Raises:
        UsageError: the true gradient of a defence that has none.
    """
    if backward not in ("identity", "true") or (backward == "true" and not defence.differentiable):
        raise UsageError(f"backward={backward}: {type(defence).__name__} is attacked through the identity.")
    if backward == "true":
        return lambda images: forward(defence(images))
    return lambda images: forward(_Identity.apply(images, defence(images.detach())))


def adaptive(forward: Forward, defence: Preprocessing, draws: int = 16) -> dict[str, Forward]:
    """What an attack that knows the defence goes through, by name: an item broken through any of them is broken.

    The identity always, the true gradient where there is one; of random defences the mean over `draws`. Attack random
    ones with `keep="last"`: a first success lies on the boundary of the mean, where half of the fresh draws are right.
    """
    ways = ("identity", "true") if defence.differentiable else ("identity",)
    found = {way: defended(forward, defence, way) for way in ways}
    return {way: averaged(one, draws) if defence.random else one for way, one in found.items()}


def averaged(forward: Forward, draws: int = 16) -> Forward:
    """EOT: the mean logits over draws of a random network, whose gradient is the mean of the draws' gradients."""

    def mean(images: Tensor) -> Tensor:
        logits = forward(images.repeat(draws, 1, 1, 1))
        return logits.unflatten(0, (draws, len(images))).mean(0)

    return mean


def share_right(forward: Forward, images: Tensor, labels: Tensor, draws: int = 20) -> Tensor:
    """Of each item (N,) the share of `draws` fresh passes of a random network that name its label."""
    return torch.stack([judged(forward, images).argmax(1) == labels for _ in range(draws)]).float().mean(0)
