"""The discriminator that judges patches: is this one of a real image of the domain?

Source: Zhu et al. 2017 (arXiv 1703.10593), appendix 7.2; Isola et al. 2017 (arXiv 1611.07004), section 3.2.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from lightning_modules.adaptation.translation.generators import InstanceNorm, initialise


class PatchDiscriminator(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → a map of judgements (B, 1, h, w), each of one patch.

    Convolutions 4×4, leaky ReLU of slope 0.2: `layers` of stride 2, one of stride 1, and one to the map; all but the
    first and the last are normalised. The paper's has 3 layers and patches of 70 pixels, wider than a digit (2,764,737
    parameters of width 64); with 1 they have 16, and texture is judged, the shape is left to the cycle (136,385
    parameters of width 64, 35,425 of width 32; a 28×28 image has a map of 12×12).

    Raises:
        UsageError: the image is too small for so many layers.
    """

    def __init__(self, channels: int, width: int, layers: int, side: int):
        super().__init__()
        if map_side(side, layers) < 1:
            raise UsageError(
                f"model.discriminator_layers={layers} leave nothing of images of {side} pixels a side: give fewer."
            )
        widths = [channels, *(width * 2**number for number in range(layers + 1))]
        strides = [2] * layers + [1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=stride, padding=1)
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.judge = nn.Conv2d(widths[-1], 1, 4, padding=1)
        self.norm = InstanceNorm()
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = F.leaky_relu(self.norm(x) if number else x, 0.2)
        return self.judge(x).float()


def map_side(side: int, layers: int) -> int:
    """Of the map of judgements of an image of so many pixels a side."""
    for stride in [2] * layers + [1, 1]:
        side = (side - 2) // stride + 1
    return side


def field(layers: int) -> int:
    """Pixels a side of the patch that one judgement sees."""
    seen = 1
    for stride in [1, 1] + [2] * layers:
        seen = (seen - 1) * stride + 4
    return seen
