"""PixelCNN (section 3.3)."""

from __future__ import annotations

from typing import Any

from torch import nn

from datamodules.spec import Spec
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork, check_odd


class PixelCNN(AutoregressiveNetwork):
    """Masked convolutions alone; the paper's CIFAR-10 network has 15 blocks, h = 128.

    A block (figure 5, left): ReLU, 1×1 (2h → h), ReLU, k×k (h → h), ReLU, 1×1 (h → 2h), all mask B. Its context has
    a blind spot to the right above each pixel. Arguments: see `AutoregressiveNetwork`; `layers` counts the blocks,
    None means the paper's 15, `kernel` is k, odd.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 128,
        layers: int | None = 15,
        kernel: int = 3,
        **stack: Any,
    ):
        check_odd(kernel=kernel)
        super().__init__(
            spec,
            lambda: pixelcnn_block(hidden, spec.channels, kernel),
            hidden=hidden,
            layers=15 if layers is None else layers,
            **stack,
        )


def pixelcnn_block(hidden: int, channels: int, kernel: int) -> nn.Sequential:
    """(B, 2h, H, W) → (B, 2h, H, W), through h features."""
    return nn.Sequential(
        nn.ReLU(),
        MaskedConv2d(2 * hidden, hidden, 1, "B", channels),
        nn.ReLU(),
        MaskedConv2d(hidden, hidden, kernel, "B", channels),
        nn.ReLU(),
        MaskedConv2d(hidden, 2 * hidden, 1, "B", channels),
    )
