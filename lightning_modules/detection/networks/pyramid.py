"""What the detector sees with: a small residual backbone, or ResNet-50, and a feature pyramid on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

from datamodules.errors import UsageError


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation, and what came in added; a stride halves the map."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first = convolution(before, after, 3, stride)
        self.second = convolution(after, after, 3, 1)
        self.shortcut = convolution(before, after, 1, stride) if stride > 1 or before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def convolution(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution without bias, and batch normalisation."""
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after))


class SmallBackbone(nn.Module):
    """Images → maps at strides 4, 8, 16 …: a 3×3 convolution of stride 2, then stages of two `BasicBlock`s each."""

    def __init__(self, channels: int, stem: int, widths: Sequence[int]):
        super().__init__()
        self.widths, self.strides = list(widths), [4 * 2**place for place in range(len(widths))]
        self.stem = nn.Sequential(convolution(channels, stem, 3, 2), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(before, after, 2), BasicBlock(after, after, 1))
            for before, after in zip([stem, *widths[:-1]], widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            maps.append(x := stage(x))
        return maps


class ResNet50(nn.Module):
    """torchvision's ResNet-50 from scratch: images of three channels → its four stages' maps, strides 4 to 32."""

    def __init__(self, channels: int):
        super().__init__()
        if channels != 3:
            raise UsageError(f"model.backbone=resnet50 sees colour images, but these have {channels} channel(s).")
        body = resnet50(weights=None)
        self.widths, self.strides = [256, 512, 1024, 2048], [4, 8, 16, 32]
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        self.stages = nn.ModuleList([body.layer1, body.layer2, body.layer3, body.layer4])

    forward = SmallBackbone.forward


class Pyramid(nn.Module):
    """A feature pyramid: each map as `width` channels, plus the coarser one's, then a 3×3 convolution.

    Levels beyond the backbone's maps are every second pixel of the one before (max pooling of one pixel).
    """

    def __init__(self, backbone: nn.Module, width: int, levels: int):
        super().__init__()
        own = backbone.widths[:levels]
        self.extra = levels - len(own)
        self.strides = [*backbone.strides[:levels]]
        for _ in range(self.extra):
            self.strides.append(self.strides[-1] * 2)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in own)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in own)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        own = [lateral(level) for lateral, level in zip(self.lateral, maps, strict=False)]
        for finer in range(len(own) - 2, -1, -1):
            own[finer] = own[finer] + F.interpolate(own[finer + 1], own[finer].shape[2:])
        found = [output(level) for output, level in zip(self.output, own, strict=True)]
        for _ in range(self.extra):
            found.append(F.max_pool2d(found[-1], 1, 2))
        return found


def scaled(images: Tensor, levels: int) -> Tensor:
    """Intensities 0 … levels − 1 as numbers from −1 to 1, in float32 and channels-last."""
    return (images.float() * (2 / (levels - 1)) - 1).contiguous(memory_format=torch.channels_last)
