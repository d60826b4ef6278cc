"""The network: three convolutions that all heads share, then a small stack of linear layers for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_images
from lightning_modules.classification.networks.cnn import conv_layer


class MultitaskCNN(nn.Module):
    """Images (B, C, H, W) → logits of the fine classes, superclasses and groups: (B, fine), (B, supers), (B, groups).

    Backbone: for each of `widths` a 3×3 convolution without bias, batch normalisation, ReLU and 2×2 max pooling; then
    dropout. A head is linear, ReLU, linear. CIFAR-100 at widths 64, 128, 256 and hidden 256: 3,550,913 parameters.

    Args:
        spec: the images, and the superclass and group of each class.
        widths: of the convolutions.
        hidden: width of each head's hidden layer.
        dropout: share of the backbone's features left out in training.

    Raises:
        UsageError: the data has no superclasses and groups, a size is impossible, or the images are too small.
    """

    def __init__(self, spec: Spec, *, widths: Sequence[int] = (64, 128, 256), hidden: int = 256, dropout: float = 0.5):
        super().__init__()
        self.spec = require_images(spec, "The multi-task CNN")
        if not spec.groups:
            raise UsageError(
                "This data has no superclasses and groups of its classes: choose data=digit_shapes or data=cifar100."
            )
        if not widths or min(*widths, hidden) < 1:
            raise UsageError(f"model.widths is {list(widths)} and model.hidden {hidden}: they must be 1 or more.")
        if not 0 <= dropout < 1:
            raise UsageError(f"model.dropout is {dropout}, but it must be from 0 up to, not including, 1.")
        height, width = (side // 2 ** len(widths) for side in (spec.height, spec.width))
        if not height or not width:
            raise UsageError(
                f"model.widths halves images {len(widths)} times, which {spec.height}×{spec.width} does not allow: "
                "name fewer widths."
            )
        inputs = [spec.channels, *widths[:-1]]
        blocks = [
            nn.Sequential(conv_layer(before, after), nn.MaxPool2d(2))
            for before, after in zip(inputs, widths, strict=True)
        ]
        self.backbone = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(dropout))
        features = widths[-1] * height * width
        outputs = [spec.classes, max(spec.supers) + 1, max(spec.groups) + 1]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, labels)) for labels in outputs
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        # Divided in float32: half precision would round intensities that are not powers of two.
        x = (images.float() / (self.spec.levels - 1)).contiguous(memory_format=torch.channels_last)
        features = self.backbone(x)
        return tuple(head(features) for head in self.heads)
