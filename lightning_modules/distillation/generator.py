"""Networks that make images from noise, in the space of normalised images.

Source: Fang et al. 2019, "Data-Free Adversarial Distillation", arXiv 1912.11006, and its authors' code
(VainF/Data-Free-Adversarial-Distillation, `network/gan.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec

GENERATORS = ("upsample", "dcgan")


class Generator(nn.Module):
    """Noise z (B, latent) → images (B, C, H, W), whose channels the last normalisation gives mean 0 and variance 1.

    So they lie in the space that a teacher with `normalise` was trained in, and in no range of intensities.

    - `upsample`, the authors' for small images: a linear layer to 2·width maps of a quarter of the side; twice nearest
      doubling and a 3×3 convolution, to 2·width and to width maps; a 3×3 convolution to C, tanh. Parameters at width
      64: 1,049,985 (latent 100, 1×32×32), 2,329,091 (256, 3×32×32).
    - `dcgan`: the linear layer to 4·width maps, then 4×4 transposed convolutions of stride 2, to 2·width and to width
      maps; the last 3×3 convolution as before. (The authors have four of them, for 64 pixels and more.)

    Every normalisation has ε = 1e-5. (That of DAFL's generator, which both go back to, has 0.8 where 1e-5 was meant.)

    Args:
        spec: the images.
        latent: numbers that an image is made from.
        kind: see above.
        width: see above.
        last_norm: normalise the images; False: they are tanh's, from −1 to 1.

    Raises:
        UsageError: a side is no multiple of 4, a size is below 1, or there is no such kind.
    """

    def __init__(self, spec: ImageSpec, *, latent: int, kind: str, width: int, last_norm: bool):
        super().__init__()
        if spec.height % 4 or spec.width % 4:
            raise UsageError(
                f"The generator doubles its maps twice, but {spec.height}×{spec.width} is no multiple of 4: choose "
                "other images, or with data=mnist data.pad=2."
            )
        if kind not in GENERATORS:
            raise UsageError(f"model.generator is {kind}, but it must be {' or '.join(GENERATORS)}.")
        for name, value in {"latent": latent, "generator_width": width}.items():
            if value < 1:
                raise UsageError(f"model.{name} is {value}, but it must be 1 or more.")
        self.latent, first = latent, (2 if kind == "upsample" else 4) * width
        self.project = nn.Sequential(
            nn.Linear(latent, first * (spec.height // 4) * (spec.width // 4)),
            nn.Unflatten(1, (first, spec.height // 4, spec.width // 4)),
            nn.BatchNorm2d(first),
        )
        double = doubled if kind == "upsample" else transposed
        self.layers = nn.Sequential(double(first, 2 * width), double(2 * width, width))
        last = nn.BatchNorm2d(spec.channels, affine=False) if last_norm else nn.Identity()
        self.image = nn.Sequential(nn.Conv2d(width, spec.channels, 3, padding=1), nn.Tanh(), last)
        self.to(memory_format=torch.channels_last)  # which processors multiply faster; the values are the same

    def forward(self, noise: Tensor) -> Tensor:
        return self.image(self.layers(self.project(noise)))


def doubled(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) → (B, outputs, 2h, 2w), by nearest neighbours and a convolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


def transposed(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) → (B, outputs, 2h, 2w), by a transposed convolution."""
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
