"""Fast-SCNN (Poudel, Liwicki & Cipolla 2019, arXiv 1902.04502): two branches that share their first layers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_masks

LEAST_SIDE = 32  # pixels, the whole network's stride
DIVIDE = 8  # logits are so many times smaller than the image


class ConvBN(nn.Sequential):
    """Convolution, batch norm and, unless `relu` is false, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        relu: bool = True,
    ):
        padding = dilation * (size // 2)
        conv = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([nn.ReLU()] if relu else []))


class DSConv(nn.Sequential):
    """Depthwise 3×3, then pointwise 1×1. The paper has no ReLU between them (§3.2.1), public code often has."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dw_relu: bool = False):
        super().__init__(
            ConvBN(inputs, inputs, 3, stride, groups=inputs, relu=dw_relu),
            ConvBN(inputs, outputs),
        )


class Bottleneck(nn.Module):
    """Inverted residual (Table 2): t times wider by 1×1, depthwise 3×3, 1×1 without ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 6):
        super().__init__()
        wide = inputs * expansion
        self.layers = nn.Sequential(
            ConvBN(inputs, wide), ConvBN(wide, wide, 3, stride, groups=wide), ConvBN(wide, outputs, relu=False)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class PyramidPooling(nn.Module):
    """Averages over b×b parts of the map, b of `bins`, each 1×1 to a quarter of the channels, beside the map itself."""

    def __init__(self, channels: int, bins: Sequence[int]):
        super().__init__()
        self.bins, part = tuple(bins), channels // 4
        self.branches = nn.ModuleList(ConvBN(channels, part) for _ in self.bins)
        self.fusion = ConvBN(channels + part * len(self.bins), channels)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for size, branch in zip(self.bins, self.branches, strict=True):
            found.append(enlarged(branch(F.adaptive_avg_pool2d(x, size)), x.shape[-2:]))
        return self.fusion(torch.cat(found, 1))


class FeatureFusion(nn.Module):
    """The global features enlarged to the skip's size, plus the skip (Table 3). No concatenation, no attention.

    `skip` 0: the global features alone.
    """

    def __init__(self, skip: int, channels: int, dilation: int):
        super().__init__()
        self.low_depthwise = ConvBN(channels, channels, 3, dilation=dilation, groups=channels)
        self.low = ConvBN(channels, channels, bias=True, relu=False)
        self.high = ConvBN(skip, channels, bias=True, relu=False) if skip else None

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        fused = self.low(self.low_depthwise(enlarged(low, high.shape[-2:])))
        if self.high is not None:
            fused = fused + self.high(high)
        return F.relu(fused)


class FastSCNN(nn.Module):
    """Images (B, C, H, W) of any sides from 32 on → logits of every pixel's class (B, classes, H, W).

    Departures from the public codes: any height and width, since maps are enlarged to each other's size, never by a
    factor; the fusion's depthwise convolution is dilated as Table 3 says.

    Args:
        spec: of images with masks.
        width: all channels, in multiples of the paper's.
        bins: of the pyramid; none: no pyramid.
        skip: do features of 1/8 of the size go round the global ones?
        dw_relu: is there a ReLU inside separable convolutions?
        dropout: before the last layer.
        ffm_dilation: of the fusion's depthwise convolution.

    Raises:
        UsageError: a choice is impossible, the data has no masks or its images are too small.
    """

    def __init__(
        self,
        spec: Spec,
        width: float = 1.0,
        bins: Sequence[int] = (1, 2, 3, 6),
        skip: bool = True,
        dw_relu: bool = False,
        dropout: float = 0.1,
        ffm_dilation: int = 4,
    ):
        super().__init__()
        self.spec = require_masks(spec, "Fast-SCNN")
        check_sides(spec.height, spec.width)
        if not 0.125 <= width <= 4:
            raise UsageError(f"model.width is {width!r}, but it must be from 0.125 to 4.")
        if not all(isinstance(size, int) and 1 <= size <= 32 for size in bins):
            raise UsageError(f"model.bins is {list(bins)}, but its numbers must be whole ones from 1 to 32.")
        if not 0 <= dropout < 1:
            raise UsageError(f"model.dropout is {dropout!r}, but it must be from 0 up to, not including, 1.")
        if not 1 <= ffm_dilation <= 32:
            raise UsageError(f"model.ffm_dilation is {ffm_dilation!r}, but it must be a whole number from 1 to 32.")
        first, second, third, fourth, last = (max(8, 4 * round(c * width / 4)) for c in (32, 48, 64, 96, 128))
        self.learning_to_downsample = nn.Sequential(
            ConvBN(spec.channels, first, 3, 2),
            DSConv(first, second, 2, dw_relu),
            DSConv(second, third, 2, dw_relu),
        )
        self.bottlenecks = nn.Sequential(
            *bottlenecks(third, third, 2), *bottlenecks(third, fourth, 2), *bottlenecks(fourth, last, 1)
        )
        self.pyramid = PyramidPooling(last, bins) if len(bins) else nn.Identity()
        self.fusion = FeatureFusion(third if skip else 0, last, ffm_dilation)
        self.classifier = nn.Sequential(DSConv(last, last, 1, dw_relu), DSConv(last, last, 1, dw_relu))
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(last, spec.classes, 1))
        self.widths = third, last  # of the two maps that auxiliary heads read
        self.to(memory_format=torch.channels_last)  # which CPUs convolve faster

    def forward(self, images: Tensor) -> Tensor:
        return enlarged(self.parts(images)[0], images.shape[-2:])

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at 1/8 of the size; what goes round, at 1/8; and the global features, at 1/32.

        Raises:
            UsageError: the images are too small, or one alone is to be trained on.
        """
        check_sides(*images.shape[-2:])
        if self.training and len(images) == 1 and torch.is_grad_enabled():
            raise UsageError(
                "A training batch of one image has no variance over the 1×1 maps that the pyramid's batch norm sees: "
                "choose data.batch_size=2 or more."
            )
        # The training data's own mean is learned by the first batch norm: intensities around 0 are enough here.
        pixels = images.to(self.last[1].weight.dtype) * (2 / (self.spec.levels - 1)) - 1
        high = self.learning_to_downsample(pixels.contiguous(memory_format=torch.channels_last))
        low = self.pyramid(self.bottlenecks(high))
        return self.last(self.classifier(self.fusion(high, low))), high, low


def bottlenecks(inputs: int, outputs: int, stride: int) -> list[Bottleneck]:
    """Three, of which the first has the stride."""
    return [Bottleneck(inputs, outputs, stride), Bottleneck(outputs, outputs, 1), Bottleneck(outputs, outputs, 1)]


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def check_sides(height: int, width: int) -> None:
    """Raises UsageError where images are smaller than the network's stride."""
    if min(height, width) < LEAST_SIDE:
        raise UsageError(
            f"Images of {width}×{height} pixels are too small for Fast-SCNN, whose stride is {LEAST_SIDE}: choose at "
            f"least {LEAST_SIDE}."
        )


def folded(network: FastSCNN) -> FastSCNN:
    """A copy for evaluation, each batch norm folded into the convolution before it."""
    copy = deepcopy(network).eval()
    for block in copy.modules():
        if isinstance(block, ConvBN):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
    return copy


def parameter_groups(module: nn.Module) -> list[dict]:
    """Weights that decay, and those that do not: depthwise ones (paper, §4.1), batch norms' and biases."""
    decayed, free = [], []
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            dense = isinstance(part, nn.Conv2d) and (part.groups == 1 or part.groups != part.in_channels)
            (decayed if dense and name == "weight" else free).append(parameter)
    return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
