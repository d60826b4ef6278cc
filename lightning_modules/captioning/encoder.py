"""What a decoder looks at: the annotation vectors of an image, one for each position of a small map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import CaptionSpec
from lightning_modules.classification.cnn import conv_layer
from lightning_modules.classification.network import require_least

ENCODERS = ("cnn",)


class GridEncoder(nn.Module):
    """Images (B, C, H, W) → annotations (B, L, D), the map's positions row by row.

    A 5×5 convolution with stride 2 (batch normalisation, ReLU), stages of two 3×3 convolutions and 2×2 max pooling, and
    one more convolution: images of 64×64 and widths 32, 64, 96 give 8×8 positions, each of which has seen 51×51 pixels.
    Two channels say where a position lies, x and y from −1 to 1: they are part of it, and move with it.

    Args:
        spec: of the images.
        encoder: `cnn`, trained along.
        widths: of the stages.
        coordinates: add those two channels.
        image: false: all annotations are zeros, and the decoder is a model of language alone.

    Raises:
        UsageError: there is no such encoder, or the images are too small.
    """

    def __init__(
        self,
        spec: CaptionSpec,
        encoder: str = "cnn",
        widths: Sequence[int] = (32, 64, 96),
        coordinates: bool = True,
        image: bool = True,
    ):
        super().__init__()
        if encoder not in ENCODERS:
            near = did_you_mean(str(encoder), ENCODERS)
            raise UsageError(f"model.encoder is {encoder!r}{near}: choose {' or '.join(ENCODERS)}.")
        if not widths:
            raise UsageError("model.widths is empty, but it must name the width of one stage or more.")
        require_least(1, widths=min(widths))
        self.rows, self.columns = (side // 2 ** len(widths) for side in (spec.height, spec.width))
        if self.rows < 2 or self.columns < 2:
            raise UsageError(
                f"model.widths halves images {len(widths)} times, which leaves {self.rows}×{self.columns} positions of "
                f"{spec.height}×{spec.width}: name fewer widths."
            )
        self.levels, self.coordinates, self.image = spec.levels, coordinates, image
        self.features = widths[-1]
        self.size = self.features + 2 * coordinates
        first = widths[0]
        stem = nn.Conv2d(spec.channels, first, 5, stride=2, padding=2, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
        for before, after in pairwise(widths):
            layers += [conv_layer(before, after), conv_layer(after, after), nn.MaxPool2d(2)]
        self.stages = nn.Sequential(*layers, conv_layer(widths[-1], widths[-1]))
        self.to(memory_format=torch.channels_last)

    @property
    def positions(self) -> int:
        return self.rows * self.columns

    def maps(self, images: Tensor) -> Tensor:
        """(B, features, rows, columns), without the coordinates."""
        # Scaled in float32: half precision would round intensities.
        x = (images.float() / (self.levels - 1) - 0.5).contiguous(memory_format=torch.channels_last)
        return self.stages(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.annotations(self.maps(images))

    def annotations(self, maps: Tensor) -> Tensor:
        """Of `maps`."""
        found = maps.flatten(2).transpose(1, 2)
        if self.coordinates:
            down = torch.linspace(-1, 1, self.rows, device=maps.device, dtype=found.dtype)
            across = torch.linspace(-1, 1, self.columns, device=maps.device, dtype=found.dtype)
            places = torch.cartesian_prod(down, across).flip(1)  # x, y
            found = torch.cat([found, places.expand(len(found), -1, -1)], 2)
        return found if self.image else torch.zeros_like(found)
