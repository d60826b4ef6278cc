"""Masked convolution (section 3.4): a feature sees earlier pixels, and of its own pixel only earlier colours."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def colour_groups(features: int, channels: int) -> Tensor:
    """The colour (0 … channels−1) that each feature of a map belongs to, in equal runs: R, G, B thirds.

    With `features` not divisible by `channels` the runs differ by one; an image's own channels and the
    `channels · levels` logits come out as themselves.
    """
    return torch.arange(features) * channels // features


def causal_mask(kernel: tuple[int, int], kind: Literal["A", "B"], colours_in: Tensor, colours_out: Tensor) -> Tensor:
    """The 0/1 mask (out, in, kh, kw) of a convolution kernel (figure 2, right).

    Rows above the centre and pixels to its left are seen whole. At the centre, mask A lets a feature see
    the colours before its own, mask B its own too.
    """
    height, width = kernel
    mask = torch.zeros(len(colours_out), len(colours_in), height, width)
    mask[:, :, : height // 2] = 1
    mask[:, :, height // 2, : width // 2] = 1
    own, seen = colours_out[:, None], colours_in[None, :]
    mask[:, :, height // 2, width // 2] = (seen < own) if kind == "A" else (seen <= own)
    return mask


class MaskedConv2d(nn.Conv2d):
    """A convolution that keeps the map's size and sees only what raster order allows.

    Args:
        features_in, features_out: maps in and out.
        kernel: odd (height, width), or one number for both.
        kind: "A" in the first layer, "B" in all later ones.
        channels: the image's colour channels, which divide the features of every map.
        gates: the output is this many maps of features_out / gates, each with colour groups of its own. (Thirds of
            an LSTM's whole 4h-wide gate map would let colours leak from one gate's thirds to another's.)
        gain: the weights are kept divided by it and multiplied by it where they are used, so that a step of Adam or
            RMSProp changes them so many times as much (Karras et al. 2018, arXiv 1710.10196, section 4.1).
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        kernel: int | tuple[int, int],
        kind: Literal["A", "B"],
        channels: int,
        gates: int = 1,
        gain: float = 1.0,
    ):
        kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        super().__init__(features_in, features_out, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
        colours_out = colour_groups(features_out // gates, channels).repeat(gates)
        mask = causal_mask(kernel, kind, colour_groups(features_in, channels), colours_out)
        self.register_buffer("mask", mask, persistent=False)
        self.hides = kind == "A" or kernel != (1, 1) or channels > 1  # anything at all
        self.gain = gain
        with torch.no_grad():
            self.weight.div_(gain)

    @property
    def masked_weight(self) -> Tensor:
        """(features_out, features_in, kh, kw) as they act: zero wherever the mask is, and times the gain."""
        weight = self.weight * self.mask if self.hides else self.weight
        return weight if self.gain == 1 else weight * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """x (B, features_in, H, W) → (B, features_out, H, W)."""
        if x.is_cuda and self.kernel_size == (1, 1):
            return self.by_product(x)
        return F.conv2d(x, self.masked_weight, self.bias, padding=self.padding)

    def by_product(self, x: Tensor) -> Tensor:
        """The same of a 1×1 kernel. On a GPU a convolution's bias, and the sum for its gradient, are slow passes."""
        rows = x.permute(0, 2, 3, 1)
        out = F.linear(rows.flatten(0, 2), self.masked_weight.flatten(1), self.bias)
        return out.unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)
