"""What the two recurrent layers share: the gates, the state outside the image, the choice of implementation."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from lightning_modules.pixelrnn import compiler

Engine = Literal["auto", "reference", "fused", "compiled", "triton"]
ENGINES = get_args(Engine)
COMPILED = Path(__file__).with_name("compiled.cpp")
log = logging.getLogger(__name__)


def check_engine(engine: str) -> None:
    """Raises UsageError when there is no such implementation of the recurrence.

    `reference` is the readable form; `fused` the waves of `waves.py`, made for the CPU; `compiled` the same with C++
    (`compiled.py`), where there is a compiler; `triton` the GPU kernels of `triton_scan.py`. `auto` takes the fastest
    that the device can run.
    """
    if engine not in ENGINES:
        raise UsageError(f"model.engine is '{engine}', but it must be one of {', '.join(ENGINES)}.")


@lru_cache
def choose_engine(engine: str, device: torch.device, hidden: int, weights: torch.dtype) -> str:
    """The implementation that runs where `engine` was asked for, and a log line of it; never an error.

    `weights`: their type; float64 takes the reference or the fused engine, and the compiled one takes float32 alone.
    """
    if engine == "reference":
        return engine
    wanted = ("compiled" if device.type == "cpu" else "triton") if engine == "auto" else engine
    missing = None if wanted == "fused" else why_not(wanted, device, hidden, weights)
    chosen = wanted if missing is None else "fused"
    why = "" if missing is None else f" (not the {wanted} one: {missing})"
    log.info("recurrences of %d features on %s: %s engine%s", hidden, device, chosen, why)
    return chosen


def why_not(engine: str, device: torch.device, hidden: int, weights: torch.dtype) -> str | None:
    """Why the `compiled` or `triton` engine cannot run here, in a few words; None where it can."""
    if weights == torch.float64 or (engine == "compiled" and weights != torch.float32):
        return str(weights).removeprefix("torch.")
    if engine == "triton":
        from lightning_modules.pixelrnn import triton_scan  # Triton takes a second to import

        return triton_scan.unavailable(device, hidden)
    return compiler.unavailable(COMPILED) if device.type == "cpu" else "the device is not a CPU"


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
