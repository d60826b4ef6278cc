"""The LSTM of encoder and decoder, with recurrent dropout of two kinds, and its layer-normalised cousin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from lightning_modules.tied_dropout import draw_masks, masked_recurrence

State = tuple[Tensor, Tensor]  # h and c, each (layers, B, hidden)
KINDS = ("none", "tied", "memory")
CELLS = ("lstm", "layer_norm")


class Dropout(NamedTuple):
    """Recurrent dropout: `p` the chance of a unit to be left out, `kind` how.

    none. tied: of the state that goes into the products of the next step and the next layer, the same units at all
    steps (Gal & Ghahramani 2016, arXiv 1512.05287). memory: of the candidate g, anew at each step, so that the cell
    never forgets by it (Semeniuta et al. 2016, arXiv 1603.05118); magenta's.
    """

    p: float
    kind: str

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Dropout:
        """From `model.dropout`.

        Raises:
            UsageError: the kind is unknown, or p no chance.
        """
        p, kind = settings["p"], settings["kind"]
        if kind not in KINDS:
            raise UsageError(f"model.dropout.kind is '{kind}': choose one of {', '.join(KINDS)}.")
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p < 1:
            raise UsageError(f"model.dropout.p is {p!r}, but it must be from 0 up to, not including, 1.")
        return cls(float(p), kind if p else "none")


class StrokeLSTM(nn.LSTM):
    """torch's LSTM with orthogonal recurrent weights and forget bias 1; one call but for dropout of the candidate."""

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: Dropout):
        super().__init__(inputs, hidden, layers, batch_first=True)
        self.recurrent_dropout = dropout
        for layer in range(layers):
            nn.init.xavier_uniform_(getattr(self, f"weight_ih_l{layer}"))
            orthogonal_by_gate(getattr(self, f"weight_hh_l{layer}"))
            for name in ("ih", "hh"):
                nn.init.zeros_(getattr(self, f"bias_{name}_l{layer}"))
            nn.init.ones_(getattr(self, f"bias_ih_l{layer}")[hidden : 2 * hidden])

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T, inputs) and the state before (None: zero) → (B, T, hidden) and the state after."""
        p, kind = self.recurrent_dropout
        if not self.training or kind == "none":
            return super().forward(inputs, state)
        if kind == "tied":
            return masked_recurrence(self, inputs, draw_masks(self, p), state)
        return stepwise(self, inputs, state, self.cell)

    def cell(self, layer: int, from_input: Tensor, h: Tensor, c: Tensor) -> State:
        gates = from_input + F.linear(h, getattr(self, f"weight_hh_l{layer}"), getattr(self, f"bias_hh_l{layer}"))
        i, f, g, o = gates.chunk(4, -1)
        g = candidate(torch.tanh(g), self)
        c = f.sigmoid() * c + i.sigmoid() * g
        return o.sigmoid() * torch.tanh(c), c

    def from_inputs(self, layer: int, inputs: Tensor) -> Tensor:
        return F.linear(inputs, getattr(self, f"weight_ih_l{layer}"), getattr(self, f"bias_ih_l{layer}"))


class LayerNormLSTM(nn.Module):
    """An LSTM whose four gates are normalised each, with a gain, and whose cell is before its tanh (magenta's
    `layer_norm`); no biases but the cell's and the forget gate's constant 1."""

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: Dropout):
        super().__init__()
        self.hidden_size, self.num_layers, self.recurrent_dropout = hidden, layers, dropout
        widths = [inputs, *[hidden] * (layers - 1)]
        self.weight_ih = nn.ParameterList(nn.Parameter(torch.empty(4 * hidden, width)) for width in widths)
        self.weight_hh = nn.ParameterList(nn.Parameter(torch.empty(4 * hidden, hidden)) for _ in widths)
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(4, hidden)) for _ in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in widths)
        for weights in self.weight_ih:
            nn.init.xavier_uniform_(weights)
        for weights in self.weight_hh:
            orthogonal_by_gate(weights)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T, inputs) and the state before (None: zero) → (B, T, hidden) and the state after."""
        return stepwise(self, inputs, state, self.cell)

    def cell(self, layer: int, from_input: Tensor, h: Tensor, c: Tensor) -> State:
        gates = (from_input + F.linear(h, self.weight_hh[layer])).unflatten(-1, (4, -1))
        i, f, g, o = (F.layer_norm(gates, gates.shape[-1:]) * self.gains[layer]).unbind(-2)
        c = (f + 1).sigmoid() * c + i.sigmoid() * candidate(torch.tanh(g), self)
        return o.sigmoid() * torch.tanh(self.norms[layer](c)), c

    def from_inputs(self, layer: int, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight_ih[layer])


def stepwise(lstm: Any, inputs: Tensor, state: State | None, cell: Any) -> tuple[Tensor, State]:
    """All layers of a recurrence, one step after the other; a layer's product with its inputs is taken at once.

    Masks of `tied` are of each sequence, and of the recurrent product alone.
    """
    zero = inputs.new_zeros(lstm.num_layers, len(inputs), lstm.hidden_size)
    before = state or (zero, zero)
    after, dropout = [], lstm.recurrent_dropout
    for layer in range(lstm.num_layers):
        h, c, steps = before[0][layer], before[1][layer], []
        tied = lstm.training and dropout.kind == "tied"
        mask = F.dropout(torch.ones_like(h), dropout.p) if tied else None
        for given in lstm.from_inputs(layer, inputs).unbind(1):
            h, c = cell(layer, given, h if mask is None else h * mask, c)
            steps.append(h)
        inputs = torch.stack(steps, 1)
        after.append((h, c))
    return inputs, tuple(torch.stack(parts) for parts in zip(*after, strict=True))


def candidate(g: Tensor, lstm: Any) -> Tensor:
    """The candidate, with its dropout in training."""
    dropout = lstm.recurrent_dropout
    return F.dropout(g, dropout.p, lstm.training and dropout.kind == "memory")


def orthogonal_by_gate(weights: Tensor) -> None:
    """Makes each gate's recurrent weights orthogonal."""
    for gate in weights.detach().chunk(4):
        nn.init.orthogonal_(gate)
