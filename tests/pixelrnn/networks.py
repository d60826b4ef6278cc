"""Small networks with weights as after training: every term matters, none saturates."""

from __future__ import annotations

import torch
from torch import nn

from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM, PixelCNN, PixelNet, RowLSTM

NETWORKS = [PixelCNN, RowLSTM, DiagonalBiLSTM, PixelNet]


def make(network: type, spec: ImageSpec, *, hidden: int = 8, layers: int = 1, std: float = 0.4, **sizes) -> nn.Module:
    """A network in float64 and evaluation mode, every parameter and running statistic away from its initial value."""
    made = network(spec, hidden=hidden, layers=layers, **sizes).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=std)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return made


def random_images(spec: ImageSpec, count: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(0, spec.levels, (count, *spec.shape)).to(dtype)
