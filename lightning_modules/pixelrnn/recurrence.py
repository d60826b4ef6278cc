"""What the two recurrent layers share: the gates, and the state outside the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError

ENGINES = ("auto", "reference")


def check_engine(engine: str) -> None:
    """Raises UsageError when there is no such implementation of the recurrence; `auto` is the fastest there is."""
    if engine not in ENGINES:
        raise UsageError(f"model.engine is '{engine}', but it must be one of {', '.join(ENGINES)}.")


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
