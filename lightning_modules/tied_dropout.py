"""Dropout in a recurrence with one mask for all time steps (Gal & Ghahramani 2016, arXiv 1512.05287, Section 4).

In every step the state that goes into the products is h∘z with the same z, whose elements are 0, or 1/(1−p) with
probability 1−p; likewise what a layer reads from the one below. As W(h∘z) = (W∘z)h, z over the columns of W, this is
torch's own recurrence with the columns of its weights multiplied: `masked_recurrence`, one mask for a whole batch.
`looped_recurrence` is the same written out step by step, with masks of each sequence: the reference, and slower.

The cell state is never masked, nor is what a GRU carries over, z∘h: only what is multiplied by weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]  # by the weight's name: (1 or sequences, 1 or gates, columns)
State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of a GRU; each (layers · directions, B, hidden)
Recurrence = nn.LSTM | nn.GRU
KINDS = ("tied", "untied")


def draw_masks(
    layer: Recurrence,
    p: float,
    generator: torch.Generator | None = None,
    kind: str = "tied",
    input_p: float = 0.0,
    sequences: int = 1,
) -> Masks:
    """Masks of every weight that multiplies a state, on the weights' device.

    Args:
        layer: torch's recurrence, of any number of layers and directions.
        p: the probability of dropping, of the hidden states and of what layers above the first read.
        generator: on the CPU; None: torch's own random state.
        kind: tied: one mask for all gates of a weight; untied: one for each.
        input_p: of what the first layer reads.
        sequences: 1: a mask for a whole batch; more, for the loop alone: masks of each sequence.
    """
    gates = 1 if kind == "tied" else (4 if isinstance(layer, nn.LSTM) else 3)
    found = {}
    for name, weight in layer.named_parameters():
        chance = input_p if name.startswith("weight_ih_l0") else p
        if name.startswith("weight") and chance > 0:
            kept = torch.rand(sequences, gates, weight.shape[1], generator=generator) >= chance
            found[name] = (kept / (1 - chance)).to(weight)
    return found


def masked_recurrence(
    layer: Recurrence, x: Tensor, masks: Masks | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    """What `layer` (batch_first) makes of x (B, T, features): its states (B, T, directions · hidden), and the last one.

    Args:
        masks: of a whole batch, from `draw_masks`; None or empty: none is dropped.
        state: before the first step; None: zero.
    """
    # Named in the order in which torch's functions take them.
    flat = [masked_weight(weight, (masks or {}).get(name)) for name, weight in layer.named_parameters()]
    if state is None:
        state = zero_state(layer, x)
    lstm = isinstance(layer, nn.LSTM)
    run, before = (torch.lstm, list(state)) if lstm else (torch.gru, state[0])
    training, both = layer.training, layer.bidirectional
    found = run(x, before, flat, layer.bias, layer.num_layers, 0.0, training, both, True)
    return found[0], found[1:]


def masked_weight(weight: Tensor, mask: Tensor | None) -> Tensor:
    """The weight (gates · hidden, columns) with its columns, of each gate or of all, multiplied by the mask."""
    if mask is None:
        return weight
    if len(mask) != 1:
        raise ValueError("masks of each sequence need the loop")
    gates = mask.shape[1]
    return (weight.view(gates, -1, weight.shape[1]) * mask[0][:, None]).view_as(weight)


def zero_state(layer: Recurrence, x: Tensor) -> State:
    """What stands before the first step of x (B, T, features)."""
    shape = (layer.num_layers * (1 + layer.bidirectional), len(x), layer.hidden_size)
    return tuple(x.new_zeros(shape) for _ in range(2 if isinstance(layer, nn.LSTM) else 1))


# The reference


def looped_recurrence(
    layer: Recurrence, x: Tensor, masks: Masks | None = None, state: State | None = None
) -> tuple[Tensor, State]:
    """The same, written out; masks may be of each sequence."""
    state = zero_state(layer, x) if state is None else state
    directions, last = 1 + layer.bidirectional, []
    for level in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            place = level * directions + direction
            ending = f"_l{level}" + "_reverse" * direction
            own = tuple(part[place] for part in state)
            states, after = one_direction(layer, ending, x.flip(1) if direction else x, masks or {}, own)
            outputs.append(states.flip(1) if direction else states)
            last.append(after)
        x = torch.cat(outputs, -1)
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def one_direction(layer: Recurrence, ending: str, x: Tensor, masks: Masks, state: State) -> tuple[Tensor, State]:
    """One layer, one direction: states (B, T, hidden) in the order read, and the last."""
    step = lstm_step if isinstance(layer, nn.LSTM) else gru_step
    states = []
    for at_t in x.unbind(1):
        below, above = (
            product(layer, f"{name}{ending}", given, masks) for name, given in (("ih", at_t), ("hh", state[0]))
        )
        state = step(below, above, state)
        states.append(state[0])
    return torch.stack(states, 1), state


def product(layer: Recurrence, name: str, given: Tensor, masks: Masks) -> Tensor:
    """W_k (given∘z_k) + b for each gate k, side by side (B, gates · hidden)."""
    weight, mask = getattr(layer, f"weight_{name}"), masks.get(f"weight_{name}")
    bias = getattr(layer, f"bias_{name}") if layer.bias else 0.0
    if mask is None:
        return given @ weight.T + bias
    dropped = given[:, None] * mask  # (B, 1 or gates, columns)
    by_gate = weight.view(mask.shape[1], -1, weight.shape[1])
    return torch.einsum("bgc,ghc->bgh", dropped, by_gate).flatten(1) + bias


def lstm_step(below: Tensor, above: Tensor, state: State) -> State:
    """(i, f, g, o) = W_x x + W_h h; c = f∘c + i∘g; h = o∘tanh c. torch keeps the gates in this order."""
    i, f, g, o = (below + above).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(below: Tensor, above: Tensor, state: State) -> State:
    """torch's form, whose reset gate acts after the recurrent product; the carry z∘h is not masked."""
    (r, z, n), (r_h, z_h, n_h) = below.chunk(3, -1), above.chunk(3, -1)
    r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
    return ((1 - z) * (n + r * n_h).tanh() + z * state[0],)
