"""What a decoder looks at: the annotation vectors of an image, one for each position of a small map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import CaptionSpec, ImageSpec
from lightning_modules.classification import EfficientNetLite, ResNet50
from lightning_modules.classification.network import require_least
from lightning_modules.classification.networks.cnn import conv_layer
from lightning_modules.classification.transfer.features import FeatureSettings, split_features

# Of each encoder with published weights: the network, the depth whose map is taken, and the map's features.
FROZEN = {"efficientnet_lite0": (EfficientNetLite, 15, 320), "resnet50": (ResNet50, "head", 2048)}
ENCODERS = ("cnn", *FROZEN)
SIZE = 224  # pixels a side that published networks see,
SIDE = 7  # and rows and columns of the map they make of them


class GridEncoder(nn.Module):
    """Images (B, C, H, W) → annotations (B, L, D), the map's positions row by row.

    Two channels say where a position lies, x and y from −1 to 1: they are part of it, and move with it.

    Args:
        rows, columns, features: of the map.
        coordinates: add those two channels.
        image: false: all annotations are zeros, and the decoder is a model of language alone.
    """

    def __init__(self, rows: int, columns: int, features: int, coordinates: bool, image: bool):
        super().__init__()
        self.rows, self.columns, self.features = rows, columns, features
        self.coordinates, self.image = coordinates, image
        self.size = features + 2 * coordinates

    @property
    def positions(self) -> int:
        return self.rows * self.columns

    def maps(self, images: Tensor) -> Tensor:
        """(B, features, rows, columns), without the coordinates."""
        if not self.image:
            return torch.zeros(len(images), self.features, self.rows, self.columns, device=images.device)
        return self.maps_of(images)

    def maps_of(self, images: Tensor) -> Tensor:
        raise NotImplementedError

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


class TrainedEncoder(GridEncoder):
    """Trained along with the decoder.

    A 5×5 convolution with stride 2 (batch normalisation, ReLU), stages of two 3×3 convolutions and 2×2 max pooling, and
    one more convolution: images of 64×64 and widths 32, 64, 96 give 8×8 positions, each of which has seen 51×51 pixels.

    Args:
        spec: of the images.
        widths: of the first convolution and of the stages.
        coordinates, image: see `GridEncoder`.

    Raises:
        UsageError: the images are too small.
    """

    def __init__(self, spec: CaptionSpec, widths: Sequence[int], coordinates: bool, image: bool):
        if not widths:
            raise UsageError("model.widths is empty, but it must name the width of one stage or more.")
        require_least(1, widths=min(widths))
        rows, columns = (side // 2 ** len(widths) for side in (spec.height, spec.width))
        if rows < 2 or columns < 2:
            raise UsageError(
                f"model.widths halves images {len(widths)} times, which leaves {rows}×{columns} positions of "
                f"{spec.height}×{spec.width}: name fewer widths."
            )
        super().__init__(rows, columns, widths[-1], coordinates, image)
        self.levels, first = spec.levels, widths[0]
        stem = nn.Conv2d(spec.channels, first, 5, stride=2, padding=2, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
        for before, after in pairwise(widths):
            layers += [conv_layer(before, after), conv_layer(after, after), nn.MaxPool2d(2)]
        self.stages = nn.Sequential(*layers, conv_layer(widths[-1], widths[-1]))
        self.to(memory_format=torch.channels_last)

    def maps_of(self, images: Tensor) -> Tensor:
        # Scaled in float32: half precision would round intensities.
        x = (images.float() / (self.levels - 1) - 0.5).contiguous(memory_format=torch.channels_last)
        return self.stages(x)


class FrozenEncoder(GridEncoder):
    """A published network's last map before its head, 7×7 positions of an image made 224×224, never trained.

    A training reads the weights (`begin_`); a checkpoint holds them. Since an image's map never changes, those of a
    data set are computed once (`Maps`).

    Args:
        spec: of the images.
        encoder: a name of `FROZEN`.
        weights: `imagenet`, the published; a file; or `none`, random ones.
        coordinates, image: see `GridEncoder`.
    """

    def __init__(self, spec: CaptionSpec, encoder: str, weights: str, coordinates: bool, image: bool):
        make, self.depth, features = FROZEN[encoder]
        super().__init__(SIDE, SIDE, features, coordinates, image)
        two = ImageSpec(*spec.shape, spec.levels, classes=2)  # there is no network without classes: its head is unused
        self.network = make(two, size=SIZE, weights=weights, train="head")
        self.network.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        return super().train(False)

    def begin_(self) -> str:
        """Reads the weights; says which.

        Raises:
            UsageError: they are not there, or damaged.
        """
        return self.network.begin_()

    @torch.no_grad()
    def maps_of(self, images: Tensor) -> Tensor:
        return self.network.depth_maps(images, [self.depth])[0]


class Maps:
    """The encoder's maps of a data set's images: of a frozen encoder computed once for all splits, and kept in the
    cache."""

    def __init__(self, encoder: GridEncoder, data: Any, device: torch.device, precision: str):
        self.encoder, self.device = encoder, device
        self.known: dict[str, np.ndarray] = {}
        if isinstance(encoder, FrozenEncoder) and encoder.image:
            images = {split: found.images for split, found in data.splits.items()}
            settings = FeatureSettings([encoder.depth], pool="none")
            self.known = split_features(
                encoder.network, images, settings, data.cache, device=device, precision=precision, batch_size=25
            )

    def __call__(self, images: Tensor, split: str, items: Tensor) -> Tensor:
        """(B, features, rows, columns) of images (B, C, H, W), which are these items (B,) of train, val, test or
        test_unseen."""
        found = self.known.get("unseen" if split == "test_unseen" else split)
        if found is None:
            return self.encoder.maps(images)
        rows = torch.from_numpy(found[items.cpu().numpy()]).to(self.device)
        return rows.view(-1, self.encoder.features, self.encoder.rows, self.encoder.columns)


def make_encoder(
    spec: CaptionSpec, encoder: str, weights: str, widths: Sequence[int], coordinates: bool, image: bool
) -> GridEncoder:
    """The encoder of this name.

    Raises:
        UsageError: there is none, or it does not take these images.
    """
    if encoder not in ENCODERS:
        near = did_you_mean(str(encoder), ENCODERS)
        raise UsageError(f"model.encoder is {encoder!r}{near}: choose {', '.join(ENCODERS)}.")
    if encoder == "cnn":
        return TrainedEncoder(spec, widths, coordinates, image)
    return FrozenEncoder(spec, encoder, weights, coordinates, image)
