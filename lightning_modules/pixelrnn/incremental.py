"""A network applied to one pixel at a time, exactly: each layer computes the new pixel only and keeps what it needs.

The whole of an image costs about one pass of the full network, where drawing by full passes costs one for every
sub-pixel. Every class here steps one module: `step(x, column)` takes the pixel's input (B, features) and gives its
output; a pixel may be stepped again, its later colours known; `end_row` is called when its row is finished.

Names: B images, W the map's width, h features of an LSTM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer, DiagonalScan
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.recurrence import lstm_step
from lightning_modules.pixelrnn.row_lstm import RowLayer
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork


class Steps:
    """A module that looks at no other pixel: an activation, or batch normalisation in evaluation mode."""

    def __init__(self, module: nn.Module, batch: int, width: int):
        self.module = module

    def step(self, x: Tensor, column: int) -> Tensor:
        return self.module(x[:, :, None, None])[:, :, 0, 0]

    def end_row(self) -> None:
        pass


class ConvSteps(Steps):
    """A masked convolution: keeps the rows that its kernel reaches, this row's as far as it is known."""

    def __init__(self, conv: MaskedConv2d, batch: int, width: int):
        height, self.kernel_width = conv.kernel_size
        self.reach = self.kernel_width // 2
        weight = conv.masked_weight[:, :, : height // 2 + 1]
        self.weight, self.bias = weight.flatten(1), conv.bias
        self.rows = weight.new_zeros(batch, conv.in_channels, height // 2 + 1, width + 2 * self.reach)

    def put(self, x: Tensor, column: int) -> None:
        """Keeps the pixel's input (B, features)."""
        self.rows[:, :, -1, column + self.reach] = x

    def step(self, x: Tensor, column: int) -> Tensor:
        self.put(x, column)
        return F.linear(self.rows[..., column : column + self.kernel_width].flatten(1), self.weight, self.bias)

    def end_row(self) -> None:
        self.rows = self.rows.roll(-1, dims=2)
        self.rows[:, :, -1] = 0


class PointSteps(Steps):
    """A masked 1×1 convolution: nothing to keep."""

    def __init__(self, conv: MaskedConv2d, batch: int, width: int):
        self.weight, self.bias = conv.masked_weight[:, :, 0, 0], conv.bias

    def step(self, x: Tensor, column: int) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class SequenceSteps(Steps):
    """Modules one after another."""

    def __init__(self, modules: nn.Sequential, batch: int, width: int):
        self.parts = [steps_of(module, batch, width) for module in modules]

    def step(self, x: Tensor, column: int) -> Tensor:
        for part in self.parts:
            x = part.step(x, column)
        return x

    def end_row(self) -> None:
        for part in self.parts:
            part.end_row()


class RowSteps(Steps):
    """Row LSTM: the state-to-state convolution of the finished row is formed once, for the whole next row."""

    def __init__(self, layer: RowLayer, batch: int, width: int):
        self.input_to_state = steps_of(layer.input_to_state, batch, width)
        self.up = steps_of(layer.up, batch, width)
        self.state_to_state, (h, c) = layer.state_to_state, layer.outside()
        self.pad = h[:, None].expand(batch, -1, self.state_to_state.kernel_size[0] // 2)
        self.h, self.c = (state[:, None].expand(batch, -1, width).clone() for state in (h, c))  # of this row, so far
        self.end_row()

    def end_row(self) -> None:
        self.input_to_state.end_row()
        self.c_above = self.c.clone()
        self.from_above = self.state_to_state(torch.cat([self.pad, self.h, self.pad], dim=2))

    def step(self, x: Tensor, column: int) -> Tensor:
        gates = self.input_to_state.step(x, column) + self.from_above[:, :, column]
        self.h[:, :, column], self.c[:, :, column] = lstm_step(gates, self.c_above[:, :, column], dim=1)
        return self.up.step(self.h[:, :, column], column)


class ScanSteps(Steps):
    """One diagonal scan, cell by cell along a row from its own side: `sideways` is −1 or +1, towards the neighbour."""

    def __init__(self, scan: DiagonalScan, batch: int, width: int, sideways: int):
        self.input_to_state = steps_of(scan.input_to_state, batch, width)
        self.state_to_state, self.sideways, self.width = scan.state_to_state, sideways, width
        self.h_outside, self.c_outside = (state.expand(batch, -1) for state in scan.outside())
        self.h_above = self.h_outside[:, :, None].expand(-1, -1, width)
        self.h = self.h_above.clone()
        self.c = torch.empty_like(self.h)

    def step(self, x: Tensor, column: int) -> Tensor:
        side = column + self.sideways
        inside = 0 <= side < self.width
        h_side = self.h[:, :, side] if inside else self.h_outside
        c_side = self.c[:, :, side] if inside else self.c_outside
        states = torch.cat([self.h_above[:, :, column], h_side], dim=1)
        gates = self.input_to_state.step(x, column) + self.state_to_state(states)
        h, self.c[:, :, column] = lstm_step(gates, c_side, dim=1)
        self.h[:, :, column] = h
        return h

    def end_row(self) -> None:
        self.h_above = self.h.clone()


class DiagonalSteps(Steps):
    """Diagonal BiLSTM: the left scan goes with the pixels; the right one runs when a row is finished, for the next."""

    def __init__(self, layer: DiagonalLayer, batch: int, width: int):
        self.left, self.right = ScanSteps(layer.left, batch, width, -1), ScanSteps(layer.right, batch, width, +1)
        self.up, self.width = steps_of(layer.up, batch, width), width
        self.inputs: list[Tensor | None] = [None] * width
        self.from_right = torch.zeros_like(self.right.h)  # row 0 receives zeros

    def step(self, x: Tensor, column: int) -> Tensor:
        self.inputs[column] = x
        return self.up.step(self.left.step(x, column) + self.from_right[:, :, column], column)

    def end_row(self) -> None:
        for column in reversed(range(self.width)):
            self.right.step(self.inputs[column], column)
        self.left.end_row()
        self.right.end_row()
        self.from_right = self.right.h_above


class NetworkSteps:
    """A whole network, in evaluation mode, for B images of width W.

    Args:
        labels: (B,), for a conditional network.
    """

    def __init__(self, network: AutoregressiveNetwork, batch: int, width: int, labels: Tensor | None = None):
        self.network, self.scale = network, 2 / (network.spec.levels - 1)
        self.first = ConvSteps(network.first, batch, width)
        self.layers = [steps_of(layer, batch, width) for layer in network.layers]
        self.skips = [steps_of(skip, batch, width) for skip in network.skips]
        self.class_biases = [biases(labels) for biases in network.class_biases]
        *body, last = network.head
        self.head = SequenceSteps(nn.Sequential(*body), batch, width)
        levels = network.spec.levels
        weight, bias = last.masked_weight[:, :, 0, 0], last.bias
        self.channel_heads = list(zip(weight.split(levels), bias.split(levels), strict=True))

    def _scaled(self, pixel: Tensor) -> Tensor:
        return pixel.to(self.first.weight.dtype) * self.scale - 1

    def put(self, pixel: Tensor, column: int) -> None:
        """Keeps a finished pixel's intensities (B, C): its last colour, which no step has seen."""
        self.first.put(self._scaled(pixel), column)

    def step(self, pixel: Tensor, column: int) -> Tensor:
        """The pixel's intensities (B, C), of which later colours do not matter → features (B, 2h)."""
        x = self.first.step(self._scaled(pixel), column)
        to_head = 0
        for number, layer in enumerate(self.layers):
            update = layer.step(x + self.class_biases[number] if self.class_biases else x, column)
            x = x + update if self.network.residual else update
            if self.skips:
                to_head = to_head + self.skips[number].step(update, column)
        return x + to_head

    def logits(self, features: Tensor, channel: int) -> Tensor:
        """Features (B, 2h) → the channel's unnormalised log-probabilities (B, levels)."""
        return F.linear(self.head.step(features, 0), *self.channel_heads[channel])

    def end_row(self) -> None:
        for part in [self.first, *self.layers]:
            part.end_row()


def steps_of(module: nn.Module, batch: int, width: int) -> Steps:
    """The steps of a module of the networks here."""
    kinds = {nn.Sequential: SequenceSteps, RowLayer: RowSteps, DiagonalLayer: DiagonalSteps}
    if isinstance(module, MaskedConv2d):
        return (PointSteps if module.kernel_size == (1, 1) else ConvSteps)(module, batch, width)
    return kinds.get(type(module), Steps)(module, batch, width)
