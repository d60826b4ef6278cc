"""Row LSTM (section 3.1): the network, its layer, and the scan in the readable reference form."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.spec import Spec
from lightning_modules.pixelrnn.compiled import compiled_lstm, row_walk
from lightning_modules.pixelrnn.masked import MaskedConv2d
from lightning_modules.pixelrnn.recurrence import Engine, StateOutside, check_engine, choose_engine, lstm_step
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork, check_odd
from lightning_modules.pixelrnn.waves import row_waves, wave_lstm


class RowLSTM(AutoregressiveNetwork):
    """PixelRNN with Row LSTM layers; the paper's CIFAR-10 network has 12 layers, h = 128, kernel 3.

    A whole row is one step, so a pixel's context is the triangle above it, not all earlier pixels. Arguments: see
    `AutoregressiveNetwork`; `layers=None` means the paper's 12; `kernel` is the size along the row of both
    convolutions, odd; `initial_state` is the state outside the image, `learned` (as in the paper) or `zero`;
    `engine` names the implementation of the recurrence (`check_engine`).
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 128,
        layers: int | None = 12,
        kernel: int = 3,
        initial_state: Literal["learned", "zero"] = "learned",
        engine: Engine = "auto",
        **stack: Any,
    ):
        check_odd(kernel=kernel)
        check_engine(engine)
        super().__init__(
            spec,
            lambda: RowLayer(hidden, spec.channels, kernel, initial_state, engine),
            hidden=hidden,
            layers=12 if layers is None else layers,
            **stack,
        )


class RowLayer(nn.Module):
    """An LSTM that runs down the rows, and the 1×1 convolution that brings its h features back to 2h.

    Input-to-state is one masked k×1 convolution of the whole map; state-to-state a k×1 convolution of the previous
    row's hidden states, which needs no mask: all of that row is earlier.
    """

    def __init__(
        self,
        hidden: int,
        channels: int,
        kernel: int,
        initial_state: Literal["learned", "zero"],
        engine: Engine = "auto",
    ):
        super().__init__()
        self.hidden, self.engine = hidden, engine
        self.input_to_state = MaskedConv2d(2 * hidden, 4 * hidden, (1, kernel), "B", channels, gates=4)
        # Unpadded: the row is padded with the state outside the image; the bias is the input-to-state's.
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, kernel, bias=False)
        self.outside = StateOutside(initial_state, hidden)
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
        """x (B, 2h, H, W) → hidden states (B, h, H, W)."""
        return row_scan(self.input_to_state(x), self.state_to_state, *self.outside())

    def by_waves(self, x: Tensor) -> Tensor:
        """The same with the fused engine."""
        kernel = self.state_to_state.kernel_size[0]
        seen = self.input_to_state.masked_weight[:, :, 0, : kernel // 2 + 1]  # mask B: nothing right of the centre
        weight = torch.cat([taps.transpose(1, 2).flatten(1) for taps in (seen, self.state_to_state.weight)], dim=1)
        outside = [state[None] for state in self.outside()]
        waves = row_waves(*x.shape[2:], kernel)
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)
        hidden = wave_lstm(rows, weight[None], self.input_to_state.bias[None], *outside, waves)
        return hidden.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def by_compiled(self, x: Tensor) -> Tensor:
        """The same with the compiled engine."""
        kernel, (height, width) = self.state_to_state.kernel_size[0], x.shape[2:]
        reach = kernel // 2
        seen = self.input_to_state.masked_weight[:, :, 0, : reach + 1]  # mask B: nothing right of the centre
        to_gates, from_states = (taps.transpose(1, 2).flatten(1)[None] for taps in (seen, self.state_to_state.weight))
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, reach, 0))
        rows = torch.cat([padded[:, :, tap : tap + width] for tap in range(reach + 1)], dim=3).flatten(1, 2)
        outside = [state[None] for state in self.outside()]
        walk, bias = row_walk(height, width, kernel), self.input_to_state.bias[None]
        hidden = compiled_lstm(rows, to_gates, from_states, bias, *outside, walk)
        return hidden.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def by_triton(self, x: Tensor) -> Tensor:
        """The same with the Triton engine."""
        from lightning_modules.pixelrnn.triton_scan import row_scans

        conv = self.input_to_state
        gates = F.conv2d(x, conv.masked_weight, padding=conv.padding).permute(0, 2, 3, 1)  # the scan adds the bias
        return row_scans(gates, self.state_to_state.weight, conv.bias, self.outside.state).permute(0, 3, 1, 2)


def row_scan(gates_in: Tensor, state_to_state: nn.Conv1d, h_outside: Tensor, c_outside: Tensor) -> Tensor:
    """Runs the LSTM down the rows of a map.

    Args:
        gates_in: input-to-state term (B, 4h, H, W).
        state_to_state: unpadded convolution (B, h, W + k−1) → (B, 4h, W).
        h_outside, c_outside: (h,), the state of the row above the image and of what lies left and right of it.

    Returns:
        Hidden states (B, h, H, W).
    """
    batch, _, _, width = gates_in.shape
    pad = h_outside[:, None].expand(batch, -1, state_to_state.kernel_size[0] // 2)
    h, c = (state[:, None].expand(batch, -1, width) for state in (h_outside, c_outside))
    rows = []
    for gates in gates_in.unbind(2):
        h, c = lstm_step(gates + state_to_state(torch.cat([pad, h, pad], dim=2)), c, dim=1)
        rows.append(h)
    return torch.stack(rows, dim=2)
