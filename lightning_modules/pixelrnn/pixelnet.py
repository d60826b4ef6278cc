"""PixelNet: masked convolutions with residual connections and batch normalisation."""

from __future__ import annotations

from typing import Any

from torch import nn

from datamodules.spec import Spec
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork, check_odd


class PixelNet(AutoregressiveNetwork):
    """The masked network of a course assignment: blocks of batch normalisation, ReLU and a k×k mask-B convolution.

    Batch normalisation mixes positions and images while training, so its training loss is not a likelihood; in
    evaluation mode the network is causal. Gradient checkpointing is not offered: forming a block again would count
    its batch twice in the running statistics. Arguments: see `AutoregressiveNetwork`; `kernel` is k, odd.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 32,
        layers: int | None = 6,
        kernel: int = 3,
        **stack: Any,
    ):
        check_odd(kernel=kernel)
        super().__init__(
            spec,
            lambda: nn.Sequential(
                nn.BatchNorm2d(2 * hidden),
                nn.ReLU(),
                MaskedConv2d(2 * hidden, 2 * hidden, kernel, "B", spec.channels),
            ),
            hidden=hidden,
            layers=6 if layers is None else layers,
            **stack,
        )
