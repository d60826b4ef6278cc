"""What the decoder looks back at: its own past, or the encoder's states (additive attention, Bahdanau et al. 2015)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 8_000_000  # numbers of one piece of the scores' inputs: a batch's (B, T, T, width) would be 800 MB


class Past(NamedTuple):
    """What was drawn before, as attention sees it: keys (B, t, width), states (B, t, hidden) and the pen (B, t, 2)."""

    keys: Tensor
    states: Tensor
    positions: Tensor


class PastAttention(nn.Module):
    """e_ij = vᵀ tanh(W_q h_i + W_k [h_j; p_j]) over steps j < i; α = softmax(e); p_j is the pen's position at step j.

    The context is Σ_j α_ij [h_j; p_j] with p_i taken off its last two numbers, so that it says where what is attended
    to lies from the pen; all 0 at the first step, which has no past. Positions are in float32 whatever the precision:
    half of it would round where the pen was, by more than the offsets from there.
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
            given = queries[:, rows], past, past.positions[:, rows], first
            # Of several pieces each is computed again on the way back, not kept.
            whole = size >= steps - 1 or not torch.is_grad_enabled()
            contexts.append(
                self.piece(*given)
                if whole
                else checkpoint(self.piece, *given, use_reentrant=False, preserve_rng_state=False)
            )
        return torch.cat(contexts, 1)

    def piece(self, queries: Tensor, past: Past, here: Tensor, first: int) -> Tensor:
        """The contexts of the steps from number `first` on, at which the pen is `here`."""
        return self.seen(self.weights(queries, past.keys, first), past, here)

    def weights(self, queries: Tensor, keys: Tensor, first: int) -> Tensor:
        """α (B, queries, T) of the steps from number `first` ≥ 1 on; 0 for steps that are not in the past."""
        scores = self.score(torch.tanh(queries[:, :, None] + keys[:, None])).squeeze(-1)
        steps = torch.arange(first, first + queries.shape[1], device=keys.device)
        future = torch.arange(keys.shape[1], device=keys.device)[None] >= steps[:, None]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return scores.masked_fill(future, -torch.inf).softmax(-1)

    def past(self, states: Tensor, positions: Tensor) -> Past:
        with torch.autocast(states.device.type, enabled=False):
            weight = self.key.weight
            keys = self.key(torch.cat([states.to(weight.dtype), positions.to(weight.dtype)], -1))
            return Past(keys.to(states.dtype), states, positions.to(weight.dtype))

    def seen(self, weights: Tensor, past: Past, here: Tensor) -> Tensor:
        """Σ_j α_ij [h_j; p_j − p_i]."""
        with torch.autocast(weights.device.type, enabled=False):
            where = weights.to(here.dtype) @ past.positions - here
            return torch.cat([weights.to(past.states.dtype) @ past.states, where.to(past.states.dtype)], -1)

    def step(self, state: Tensor, position: Tensor, before: Past | None) -> tuple[Tensor, Tensor | None, Past]:
        """One step while drawing: (B, 1, hidden) and (B, 1, 2) → context, weights of the past, and the past to come."""
        own = self.past(state, position)
        if before is None:
            return state.new_zeros(len(state), 1, self.context), None, own
        weights = self.weights(self.query(state), before.keys, before.keys.shape[1])
        context = self.seen(weights, before, own.positions)
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
