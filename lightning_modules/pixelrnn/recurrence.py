"""What the two recurrent layers share: the gates, the state outside the image, the choice of implementation."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError

Engine = Literal["auto", "reference", "fused", "triton"]
ENGINES = get_args(Engine)
log = logging.getLogger(__name__)


def check_engine(engine: str) -> None:
    """Raises UsageError when there is no such implementation of the recurrence.

    `reference` is the readable form; `fused` the waves of `waves.py`, made for the CPU; `triton` the GPU kernels of
    `triton_scan.py`. `auto` takes the fastest that the device can run.
    """
    if engine not in ENGINES:
        raise UsageError(f"model.engine is '{engine}', but it must be one of {', '.join(ENGINES)}.")


@lru_cache
def choose_engine(engine: str, device: torch.device, hidden: int, double: bool) -> str:
    """The implementation that runs where `engine` was asked for, and a log line of it; never an error.

    `double`: the weights are float64, which no GPU kernel here takes.
    """
    if engine == "reference":
        return engine
    unavailable = "the device is a CPU"
    if engine == "triton" or (engine == "auto" and device.type != "cpu"):
        from lightning_modules.pixelrnn import triton_scan  # Triton takes a second to import

        unavailable = "float64" if double else triton_scan.unavailable(device, hidden)
    chosen = "triton" if engine != "fused" and unavailable is None else "fused"
    why = f" (no Triton: {unavailable})" if engine != "fused" and chosen == "fused" else ""
    log.info("recurrences of %d features on %s: %s engine%s", hidden, device, chosen, why)
    return chosen


def diagonals(height: int, width: int) -> tuple[Tensor, list[int]]:
    """The cells r·width + c of a map in the order of its diagonals r + c, rows downwards; each diagonal's length.

    These are the live cells of the skewed map's columns: padding is never computed.
    """
    row, column = torch.arange(height)[:, None], torch.arange(width)[None, :]
    number = (row + column).flatten()
    return torch.argsort(number, stable=True), torch.bincount(number).tolist()


def lstm_step(gates: Tensor, cell: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """One LSTM step (equation 3): pre-activations of o, f, i, g side by side in `dim`, the previous c → h, c."""
    o, f, i, g = gates.chunk(4, dim)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class StateOutside(nn.Module):
    """The h and c that every position outside the image has: learned, starting at zero, or always zero.

    Raises:
        UsageError: `kind` is neither `learned` nor `zero`.
    """

    def __init__(self, kind: Literal["learned", "zero"], hidden: int):
        super().__init__()
        if kind not in ("learned", "zero"):
            raise UsageError(f"model.initial_state is '{kind}', but it must be 'learned' or 'zero'.")
        self.state = nn.Parameter(torch.zeros(2, hidden), requires_grad=kind == "learned")

    def forward(self) -> tuple[Tensor, Tensor]:
        """(h,), (h,): the hidden and the cell state."""
        return self.state[0], self.state[1]
