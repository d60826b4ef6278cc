"""The convolutional network: pairs of 3×3 convolutions that double in width, pooled between the pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, Shown, require_least, require_share
from lightning_modules.classification.networks.initialisation import identity_, whiten_
from lightning_modules.classification.networks.maps import maps_section
from reporting.report import Section


class CNN(Classifier):
    """Images (B, C, H, W) → logits (B, classes).

    `depth` times a 3×3 convolution without bias, batch normalisation and ReLU; the width starts at `filters` and
    doubles every second layer, with 2×2 max pooling there; then the mean over the map, dropout and one linear layer.
    CIFAR-10: 141,034 parameters at filters 32, depth 5; 2,332,106 at filters 64, depth 7.

    Args:
        spec: the images and their classes.
        filters: width of the first two convolutions.
        depth: convolutions.
        dropout: share of the last features left out in training.
        channels_last: keep maps and weights with the channels innermost, which processors multiply faster
            (`benchmarks.data`); the values are the same.
        normalise: give each channel mean 0 and standard deviation 1 first: see `Classifier`.

    Raises:
        UsageError: the data has no classes, a size is impossible, or the images are too small for the pools.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        filters: int = 32,
        depth: int = 5,
        dropout: float = 0.5,
        channels_last: bool = True,
        normalise: bool = False,
    ):
        super().__init__(spec, "The CNN", normalise)
        require_least(1, filters=filters, depth=depth)
        require_share(dropout=dropout)
        if depth > 100:
            raise UsageError(f"model.depth is {depth}, but no image allows more than 100.")
        self.smallest = 2 ** ((depth - 1) // 2)
        self.sizes = f"at least {self.smallest}×{self.smallest}"
        if not self.takes(spec.height, spec.width):
            fits = 2 * min(spec.height, spec.width).bit_length()
            raise UsageError(
                f"model.depth={depth} halves images {(depth - 1) // 2} times, which {spec.height}×{spec.width} does "
                f"not allow: choose model.depth={fits} or less."
            )
        widths = [filters * 2 ** (layer // 2) for layer in range(depth)]
        inputs = [spec.channels, *widths[:-1]]
        self.layers = nn.ModuleList(conv_layer(wide, width) for wide, width in zip(inputs, widths, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], spec.classes)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.format)

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= self.smallest

    def maps(self, images: Tensor) -> list[Tensor]:
        """Every layer's features (B, width, h, w), after its ReLU; h and w are halved before layers 2, 4, 6 …

        Args:
            images: (B, C, H, W), integers or floats 0 … levels−1; H and W may differ from the spec's.

        Raises:
            UsageError: the images have other channels than the network's, or are too small.
        """
        x = self.scaled(images).contiguous(memory_format=self.format)
        found = []
        for number, layer in enumerate(self.layers):
            if number and number % 2 == 0:
                x = F.max_pool2d(x, 2)
            x = layer(x)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.map_and_logits(images)[1]

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's features, and the logits read from their mean: what Grad-CAM looks at."""
        features = self.maps(images)[-1]
        return features, self.head(self.dropout(features.mean((2, 3))))

    def whiten_(self, images: Tensor) -> None:
        """First weights from training images (N, C, H, W): principal directions, then identities."""
        whiten_(*self.layers[0][:2], self.scaled(images))
        for layer in self.layers[1:]:
            identity_(layer[0])

    def sections(self, shown: Shown) -> list[Section]:
        """The maps after convolutions 0, 2, 4 …"""
        device = self.head.weight.device
        with torch.no_grad():
            maps = self.eval().maps(torch.from_numpy(shown.images).to(device))
        layers = {f"conv {number}": maps[number].float().cpu().numpy() for number in range(0, len(maps), 2)}
        return [maps_section(layers, shown, self.spec.levels)]


def conv_layer(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) → (B, outputs, H, W)."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
