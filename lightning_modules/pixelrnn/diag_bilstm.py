"""Diagonal BiLSTM (section 3.2): the network, its layer, and the scan in the readable reference form."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.spec import Spec
from lightning_modules.pixelrnn.compiled import compiled_lstm, diagonal_walk
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.recurrence import (
    Engine,
    StateOutside,
    check_engine,
    choose_engine,
    diagonals,
    lstm_step,
)
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork
from lightning_modules.pixelrnn.waves import diagonal_waves, wave_lstm


class DiagonalBiLSTM(AutoregressiveNetwork):
    """PixelRNN with Diagonal BiLSTM layers; the paper's CIFAR-10 network has 12 layers, h = 128.

    Each layer scans the map along its diagonals from the top left and from the top right. Together the scans see
    every earlier pixel, but for the last one of the previous row, which only the last columns see: in its own
    column the mask-A first layer has hidden it. Arguments: see `AutoregressiveNetwork`; `layers=None` means the
    paper's 12; `initial_state` is the state outside the image, `learned` (as in the paper) or `zero`; `engine`
    names the implementation of the recurrence (`check_engine`).
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 128,
        layers: int | None = 12,
        initial_state: Literal["learned", "zero"] = "learned",
        engine: Engine = "auto",
        **stack: Any,
    ):
        check_engine(engine)
        super().__init__(
            spec,
            lambda: DiagonalLayer(hidden, spec.channels, initial_state, engine),
            hidden=hidden,
            layers=12 if layers is None else layers,
            **stack,
        )


class DiagonalLayer(nn.Module):
    """Two diagonal scans and the 1×1 convolution that brings their sum from h back to 2h features."""

    def __init__(self, hidden: int, channels: int, initial_state: Literal["learned", "zero"], engine: Engine = "auto"):
        super().__init__()
        self.hidden, self.engine = hidden, engine
        self.left, self.right = (DiagonalScan(hidden, channels, initial_state) for _ in range(2))
        self.up = MaskedConv2d(hidden, 2 * hidden, 1, "B", channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 2h, H, W) → (B, 2h, H, W)."""
        engine = choose_engine(self.engine, x.device, self.hidden, self.up.weight.dtype)
        scans = {
            "reference": self.by_reference,
            "fused": self.by_waves,
            "compiled": self.by_compiled,
            "triton": self.by_triton,
        }
        return self.up(scans[engine](x))

    def by_reference(self, x: Tensor) -> Tensor:
        """x (B, 2h, H, W) → the two scans' sum (B, h, H, W)."""
        from_right = self.right(x.flip(3)).flip(3)
        return self.left(x) + shift_down(from_right)

    def by_waves(self, x: Tensor) -> Tensor:
        """The same with the fused engine."""
        weight = torch.stack(
            [
                torch.cat([scan.input_to_state.masked_weight[:, :, 0, 0], scan.state_to_state.weight], dim=1)
                for scan in (self.left, self.right)
            ]
        )
        bias = torch.stack([scan.input_to_state.bias for scan in (self.left, self.right)])
        waves = diagonal_waves(*x.shape[2:])
        hidden = wave_lstm(x.permute(0, 2, 3, 1).flatten(1, 2), weight, bias, *self._outside(), waves)
        return hidden.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def by_compiled(self, x: Tensor) -> Tensor:
        """The same with the compiled engine."""
        scans = (self.left, self.right)
        to_gates = torch.stack([scan.input_to_state.masked_weight[:, :, 0, 0] for scan in scans])
        from_states = torch.stack([scan.state_to_state.weight for scan in scans])
        bias = torch.stack([scan.input_to_state.bias for scan in scans])
        rows, walk = x.permute(0, 2, 3, 1).flatten(1, 2), diagonal_walk(*x.shape[2:])
        hidden = compiled_lstm(rows, to_gates, from_states, bias, *self._outside(), walk)
        return hidden.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def by_triton(self, x: Tensor) -> Tensor:
        """The same with the Triton engine."""
        from lightning_modules.pixelrnn.triton_scan import diagonal_scans

        scans = (self.left, self.right)
        to_gates = torch.cat([scan.input_to_state.masked_weight.flatten(1) for scan in scans])  # (8h, 2h)
        gates = F.linear(x.permute(0, 2, 3, 1), to_gates).unflatten(3, (2, -1))
        from_states = torch.stack([scan.state_to_state.weight for scan in scans])
        bias = torch.stack([scan.input_to_state.bias for scan in scans])
        outside = torch.stack([scan.outside.state for scan in scans])
        return diagonal_scans(gates, from_states, bias, outside).permute(0, 3, 1, 2)

    def _outside(self) -> tuple[Tensor, Tensor]:
        """Both scans' hidden and cell states outside the image, each (2, h)."""
        return torch.stack([self.left.outside.state, self.right.outside.state]).unbind(1)


class DiagonalScan(nn.Module):
    """The scan from the top left: input-to-state 1×1 mask B, then an LSTM whose step is a whole diagonal."""

    def __init__(self, hidden: int, channels: int, initial_state: Literal["learned", "zero"]):
        super().__init__()
        self.input_to_state = MaskedConv2d(2 * hidden, 4 * hidden, 1, "B", channels, gates=4)
        # The 2×1 convolution down a column of the skewed map; the bias is the input-to-state's.
        self.state_to_state = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.outside = StateOutside(initial_state, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 2h, H, W) → hidden states (B, h, H, W)."""
        return diagonal_scan(self.input_to_state(x), self.state_to_state, *self.outside())


def shift_down(x: Tensor) -> Tensor:
    """The map one row lower, row 0 zero: so that no pixel sees its right-hand neighbour in its own row."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)


def diagonal_scan(gates_in: Tensor, state_to_state: nn.Module, h_outside: Tensor, c_outside: Tensor) -> Tensor:
    """Runs the LSTM over the diagonals of a map, first to last.

    The cell at (r, c) takes h from above, (r−1, c), and from its left, (r, c−1), both on the previous diagonal, and
    its cell state from the left. In the skewed map, where a diagonal is a column, these are the 2×1 state-to-state
    convolution and the previous column of the same row.

    Args:
        gates_in: input-to-state term (B, 4h, H, W).
        state_to_state: [h above, h left] (…, 2h) → (…, 4h).
        h_outside, c_outside: (h,), the state wherever a neighbour is outside the image.

    Returns:
        Hidden states (B, h, H, W).
    """
    batch, _, height, width = gates_in.shape
    order, lengths = diagonals(height, width)
    order = order.to(gates_in.device)
    live = gates_in.flatten(2).transpose(1, 2)[:, order].split(lengths, dim=1)  # each (B, length, 4h)
    h_edge, c_edge = (state.expand(batch, 1, -1) for state in (h_outside, c_outside))
    h = c = gates_in.new_empty(batch, 0, len(h_outside))
    hidden = []
    for number, gates in enumerate(live):
        top, bottom = number < width, number < height  # does this diagonal begin in row 0, end in column 0?
        h = torch.cat([h_edge] * top + [h] + [h_edge] * bottom, dim=1)
        c = torch.cat([c] + [c_edge] * bottom, dim=1)[:, 0 if top else 1 :]
        h, c = lstm_step(gates + state_to_state(torch.cat([h[:, :-1], h[:, 1:]], dim=2)), c, dim=2)
        hidden.append(h)
    cells = torch.cat(hidden, dim=1)[:, torch.argsort(order)]
    return cells.transpose(1, 2).unflatten(2, (height, width))
