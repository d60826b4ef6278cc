"""The six-block convolutional network of a course project on chest X-rays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, require_share
from lightning_modules.classification.networks.cnn import conv_layer

LARGEST = 7  # pixels of a map's shorter side up to which it is not pooled


class CovidCNN(Classifier):
    """Images (B, C, H, W) → logits (B, classes): `model=covid_cnn`.

    A block is a 3×3 convolution, normalisation, ReLU, and a 2×2 max pool where the map is larger than 7 on its shorter
    side: six pools would leave nothing of 28 pixels. Then the mean over the map, dropout, one linear layer. Grey, two
    classes: 1,145,666 parameters.

    Args:
        spec: the images and their classes.
        widths: of each block.
        dropout: before the last layer.

    Raises:
        UsageError: the data has no classes, or a width is impossible.
    """

    sizes = "at least 1×1"

    def __init__(
        self, spec: Spec, *, widths: Sequence[int] = (64, 64, 128, 128, 256, 256), dropout: float = 0.5,
        normalise: bool = False,
    ):  # fmt: skip
        super().__init__(spec, "The network of six blocks", normalise)
        require_share(dropout=dropout)
        if not len(widths) or any(
            isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths
        ):
            raise UsageError(f"model.widths is {list(widths)}, but it must be a list of whole numbers above 0.")
        inputs = [spec.channels, *widths[:-1]]
        self.blocks = nn.ModuleList(conv_layer(wide, width) for wide, width in zip(inputs, widths, strict=True))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(widths[-1], spec.classes)
        self.to(memory_format=torch.channels_last)

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= 1

    def maps(self, images: Tensor) -> list[Tensor]:
        """Every block's features (B, width, h, w), pooled where they are."""
        x, found = self.scaled(images).contiguous(memory_format=torch.channels_last), []
        for block in self.blocks:
            x = block(x)
            if min(x.shape[2:]) > LARGEST:
                x = F.max_pool2d(x, 2)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.map_and_logits(images)[1]

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last block's features, and the logits read from their mean: what Grad-CAM looks at."""
        features = self.maps(images)[-1]
        return features, self.head(self.dropout(features.mean((2, 3))))
