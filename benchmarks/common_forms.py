"""The recurrences as others write them, to measure against: the usual form, and the same with care.

Both skew the map and loop over all H + W − 1 columns, padding included, a direction at a time, with autograd's backward
pass. The usual form takes a column by indexing, whose gradient fills a whole map for each column; the careful one takes
the map apart once. They compute what this project's layers compute (a zero state outside the image), with these
layers' weights: `without_masks` makes plain convolutions of the masked ones, which then cost nothing at a step.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.pixelrnn.diag_bilstm import DiagonalBiLSTM, DiagonalLayer, DiagonalScan, shift_down
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.recurrence import lstm_step
from lightning_modules.pixelrnn.row_lstm import RowLayer


def skew(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, H, W + H − 1), row r moved r columns to the right."""
    batch, features, height, width = x.shape
    padded = F.pad(x, (0, height)).flatten(2)[:, :, : height * (width + height - 1)]
    return padded.view(batch, features, height, width + height - 1)


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`."""
    batch, features, height, columns = x.shape
    return F.pad(x.flatten(2), (0, height)).view(batch, features, height, columns + 1)[..., :width]


def diagonal_scan(scan: DiagonalScan, x: Tensor, careful: bool) -> Tensor:
    """One direction: x (B, 2h, H, W) → hidden states (B, h, H, W)."""
    gates = skew(scan.input_to_state(x))
    weight = scan.state_to_state.weight.unflatten(1, (2, -1)).transpose(1, 2).contiguous()
    columns = gates.permute(3, 0, 1, 2).contiguous().unbind(0) if careful else None
    h = c = x.new_zeros(x.shape[0], x.shape[1] // 2, x.shape[2])
    hidden = []
    for t in range(gates.shape[3]):
        column = columns[t] if careful else gates[..., t]
        h, c = lstm_step(column + F.conv1d(F.pad(h, (1, 0)), weight), c, dim=1)
        hidden.append(h)
    return unskew(torch.stack(hidden, dim=3), x.shape[3])


def diagonal_layer(layer: DiagonalLayer, x: Tensor, careful: bool = True) -> Tensor:
    from_right = diagonal_scan(layer.right, x.flip(3), careful).flip(3)
    return layer.up(diagonal_scan(layer.left, x, careful) + shift_down(from_right))


def row_layer(layer: RowLayer, x: Tensor, careful: bool = True) -> Tensor:
    gates = layer.input_to_state(x)
    rows = gates.permute(2, 0, 1, 3).contiguous().unbind(0) if careful else None
    weight, pad = layer.state_to_state.weight, layer.state_to_state.kernel_size[0] // 2
    h = c = x.new_zeros(x.shape[0], x.shape[1] // 2, x.shape[3])
    hidden = []
    for r in range(x.shape[2]):
        row = rows[r] if careful else gates[:, :, r]
        h, c = lstm_step(row + F.conv1d(h, weight, padding=pad), c, dim=1)
        hidden.append(h)
    return layer.up(torch.stack(hidden, dim=2))


class CommonNetwork(nn.Module):
    """A Diagonal BiLSTM in the careful common form: plain convolutions, maps in the usual layout, all logits at once.

    Args:
        network: whose weights are copied, with residual connections and no more.
    """

    def __init__(self, network: DiagonalBiLSTM):
        super().__init__()
        self.spec = network.spec
        self.first, self.layers, self.head = (
            without_masks(part) for part in (network.first, network.layers, network.head)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Integers (B, C, H, W) → logits (B, levels, C, H, W)."""
        x = self.first(images.float() * (2 / (self.spec.levels - 1)) - 1)
        for layer in self.layers:
            x = x + diagonal_layer(layer, x)
        return self.head(x).unflatten(1, (self.spec.channels, self.spec.levels)).transpose(1, 2)


def without_masks(module: nn.Module) -> nn.Module:
    """A copy whose masked convolutions are plain ones of the same weights, zero where the mask is."""
    if isinstance(module, MaskedConv2d):
        plain = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, padding=module.padding)
        plain = plain.to(module.weight.device)
        with torch.no_grad():
            plain.weight.copy_(module.masked_weight)
            plain.bias.copy_(module.bias)
        return plain
    copied = deepcopy(module)
    for name, child in module.named_children():
        setattr(copied, name, without_masks(child))
    return copied
