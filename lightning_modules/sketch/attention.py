"""What the decoder looks back at: its own past, or the encoder's states (additive attention, Bahdanau et al. 2015)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 8_000_000  # numbers of one piece of the scores' inputs: a batch's (B, T, T, width) would be 800 MB


class Past(NamedTuple):
    """What was drawn before, as attention sees it: keys (B, t, width) and values (B, t, hidden + 2)."""

    keys: Tensor
    values: Tensor


class PastAttention(nn.Module):
    """e_ij = vᵀ tanh(W_q h_i + W_k [h_j; p_j]) over steps j < i; α = softmax(e); p_j is the pen's position at step j.

    The context is Σ_j α_ij [h_j; p_j] with p_i taken off its last two numbers, so that it says where what is attended
    to lies from the pen; all 0 at the first step, which has no past.
    """

    def __init__(self, hidden: int, width: int = 32):
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(hidden + 2, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.context = hidden + 2

    def forward(self, states: Tensor, positions: Tensor) -> Tensor:
        """States (B, T, hidden) and positions (B, T, 2) → contexts (B, T, hidden + 2)."""
        batch, steps, _ = states.shape
        contexts = [states.new_zeros(batch, 1, self.context)]
        past, queries = self.past(states, positions), self.query(states)
        size = max(1, PIECE // max(1, batch * steps * queries.shape[-1]))
        for first in range(1, steps, size):
            rows = slice(first, min(first + size, steps))
            given = queries[:, rows], past.keys, past.values, first
            # Of several pieces each is computed again on the way back, not kept.
            whole = size >= steps - 1 or not torch.is_grad_enabled()
            context = self.piece(*given) if whole else checkpoint(
                self.piece, *given, use_reentrant=False, preserve_rng_state=False
            )  # fmt: skip
            contexts.append(self.from_pen(context, positions[:, rows]))
        return torch.cat([part.to(states.dtype) for part in contexts], 1)

    def piece(self, queries: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """Σ_j α_ij [h_j; p_j] of the steps from number `first` on."""
        return self.weights(queries, keys, first).to(values.dtype) @ values

    def weights(self, queries: Tensor, keys: Tensor, first: int) -> Tensor:
        """α (B, queries, T) of the steps from number `first` ≥ 1 on; 0 for steps that are not in the past."""
        scores = self.score(torch.tanh(queries[:, :, None] + keys[:, None])).squeeze(-1)
        steps = torch.arange(first, first + queries.shape[1], device=keys.device)
        future = torch.arange(keys.shape[1], device=keys.device)[None] >= steps[:, None]
        return scores.masked_fill(future, -torch.inf).softmax(-1)

    def past(self, states: Tensor, positions: Tensor) -> Past:
        values = torch.cat([states, positions.to(states.dtype)], -1)
        return Past(self.key(values), values)

    def from_pen(self, context: Tensor, positions: Tensor) -> Tensor:
        return torch.cat([context[..., :-2], context[..., -2:] - positions.to(context.dtype)], -1)

    def step(self, state: Tensor, position: Tensor, before: Past | None) -> tuple[Tensor, Tensor | None, Past]:
        """One step while drawing: (B, 1, hidden) and (B, 1, 2) → context, weights of the past, and the past to come."""
        own = self.past(state, position)
        if before is None:
            return state.new_zeros(len(state), 1, self.context), None, own
        weights = self.weights(self.query(state), before.keys, before.keys.shape[1])
        context = self.from_pen(weights.to(before.values.dtype) @ before.values, position)
        return context, weights, Past(*(torch.cat(pair, 1) for pair in zip(before, own, strict=True)))


class EncoderAttention(nn.Module):
    """e_ij = vᵀ tanh(W_q h_i + W_k s_j) over the encoder's states s_j; the context is Σ_j α_ij s_j.

    It goes round z, whose KL falls to 0; and of a drawing that is not there, it has nothing to look at.
    """

    def __init__(self, hidden: int, states: int, width: int = 32):
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(states, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.context = states

    def forward(self, states: Tensor, encoded: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, hidden), the encoder's (B, N, states) and how many of these are of the drawing → (B, T, states)."""
        keys, padding = self.key(encoded), torch.arange(encoded.shape[1], device=states.device) >= lengths[:, None]
        contexts = []
        size = max(1, PIECE // max(1, keys.numel()))
        for queries in self.query(states).split(size, 1):
            scores = self.score(torch.tanh(queries[:, :, None] + keys[:, None])).squeeze(-1)
            weights = scores.masked_fill(padding[:, None], -torch.inf).softmax(-1)
            contexts.append(weights.to(encoded.dtype) @ encoded)
        return torch.cat(contexts, 1)
