"""The compiled engine of both recurrences on a CPU: products by torch, all else of a wave by `compiled.cpp`.

Everything lies in the map's order, so nothing is gathered: the product of all features is formed at once, the gates
overwrite it, and the weights' gradients are products of the whole map after the scan. What cells hand on waits in
slots: a diagonal's cell in the slot of its row, a row's in that of its column. What is outside the image stands in the
slots from the beginning, and no cell overwrites it before it is read. `waves.py` computes the same without a compiler.

Legend: D directions, B images, M = H·W cells of the map, N = M of them in the order of the waves, P neighbours.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.pixelrnn.compiler import library
from lightning_modules.pixelrnn.recurrence import COMPILED, diagonals

PADDING = 16  # a row of gates of exactly 4 KiB would cost the large products a tenth: rows fall on the same cache lines
SIZES = ("directions", "batch", "map_cells", "cells", "hidden", "slots", "neighbours", "row", "threads", "bf16")
BUFFERS = (
    "offsets", "reads", "writes", "gates", "bias", "product", "states", "cell", "neighbours_seen", "before", "output",
    "d_gates", "d_bias",
)  # fmt: skip


class Walk(NamedTuple):
    """A recurrence's geometry.

    reads (D, N): the map cell of each cell; writes (D, N): the one that its hidden state is added to, −1 for none.
    waves: of each wave its place in N, its first slot, its cells.
    slots: how many; offsets (P,): the cell in slot s is neighbour p of the next wave's cell in slot s + offsets[p].
    outside: the map cells (D, n) whose neighbour p is outside the image, for each p.
    """

    reads: Tensor
    writes: Tensor
    waves: list[tuple[int, int, int]]
    slots: int
    offsets: Tensor
    outside: list[Tensor]


@lru_cache(maxsize=8)
def diagonal_walk(height: int, width: int) -> Walk:
    """Diagonals from the top left and, mirrored, from the top right, whose output goes one row down.

    Neighbour 0 is above, in the slot before; neighbour 1 to the left, in the slot itself, as is the cell state.
    """
    order, lengths = diagonals(height, width)
    row, column = order // width, order % width
    mirrored = row * width + width - 1 - column
    down = torch.where(row + 1 < height, mirrored + width, -1)
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    waves = [(starts[number], max(0, number - width + 1), length) for number, length in enumerate(lengths)]
    top, left = torch.arange(width), torch.arange(height) * width
    outside = [torch.stack([top, top]), torch.stack([left, left + width - 1])]
    return Walk(
        torch.stack([order, mirrored]), torch.stack([order, down]), waves, height, torch.tensor([1, 0]), outside
    )


@lru_cache(maxsize=8)
def row_walk(height: int, width: int, kernel: int) -> Walk:
    """Rows from the top; neighbour p is the cell p − kernel // 2 columns along the row above."""
    cells, reach = torch.arange(height * width), kernel // 2
    row, column = cells // width, cells % width
    outside = []
    for along in range(-reach, reach + 1):
        beside = (column + along < 0) | (column + along >= width)
        outside.append(cells[(row == 0) | beside][None])
    waves = [(r * width, 0, width) for r in range(height)]
    return Walk(cells[None], cells[None], waves, width, reach - torch.arange(kernel), outside)


def compiled_lstm(
    x: Tensor, to_gates: Tensor, from_states: Tensor, bias: Tensor, h_outside: Tensor, c_outside: Tensor, walk: Walk
) -> Tensor:
    """An LSTM over a map, in float32, or under autocast to bf16 with products in it.

    Gates are kept in the products' type; cell states in float32.

    Args:
        x: features (B, M, C), channels last.
        to_gates: (D, 4h, C), the weights of x; gates in the order o, f, i, g.
        from_states: (D, 4h, P·h), those of the neighbours' hidden states.
        bias: (D, 4h).
        h_outside, c_outside: (D, h), the state outside the image.
        walk: which cell comes after which.

    Returns:
        Hidden states, the directions' sum (B, M, h).
    """
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    dtype = torch.bfloat16 if autocast else torch.float32
    with torch.autocast("cpu", enabled=False):
        return _CompiledLSTM.apply(x.to(dtype), to_gates, from_states, bias, h_outside, c_outside, walk)


class _Pass(ctypes.Structure):
    """`Pass` of compiled.cpp."""

    _fields_ = [*((name, ctypes.c_int64) for name in SIZES), *((name, ctypes.c_void_p) for name in BUFFERS)]


def _pass(x: Tensor, hidden: int, walk: Walk, **buffers: Tensor) -> ctypes.Array:
    """The sizes and buffers of a pass; the buffers must outlive it."""
    (directions, cells), (batch, map_cells, _) = walk.reads.shape, x.shape
    return ctypes.byref(
        _Pass(
            directions=directions, batch=batch, map_cells=map_cells, cells=cells, hidden=hidden, slots=walk.slots,
            neighbours=len(walk.offsets), row=directions * 4 * hidden + PADDING, threads=torch.get_num_threads(),
            bf16=x.dtype == torch.bfloat16, offsets=walk.offsets.data_ptr(), reads=walk.reads.data_ptr(),
            writes=walk.writes.data_ptr(), **{name: buffer.data_ptr() for name, buffer in buffers.items()},
        )
    )  # fmt: skip


def _rows_of_gates(x: Tensor, width: int) -> Tensor:
    """(B·M, width), to be written."""
    return x.new_empty(x.shape[0] * x.shape[1], width + PADDING)[:, :width]


class _CompiledLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        to_gates: Tensor,
        from_states: Tensor,
        bias: Tensor,
        h_outside: Tensor,
        c_outside: Tensor,
        walk: Walk,
    ) -> Tensor:
        (batch, cells, _), (directions, _, parts) = x.shape, from_states.shape
        hidden, slots, neighbours, dtype = h_outside.shape[1], walk.slots, len(walk.offsets), x.dtype
        to_gates, from_states = to_gates.flatten(0, 1).to(dtype), from_states.to(dtype)
        x, bias = x.contiguous(), bias.contiguous()
        gates = _rows_of_gates(x, directions * 4 * hidden)
        torch.mm(x.flatten(0, 1), to_gates.t(), out=gates)
        edge = h_outside.to(dtype).repeat(1, neighbours)[:, None]
        states = edge.expand(-1, slots * batch, -1).contiguous()
        cell = c_outside[:, None].expand(-1, slots * batch, -1).contiguous()
        product = x.new_empty(directions * max(w[2] for w in walk.waves) * batch * 4 * hidden)
        seen = x.new_empty(batch * cells, directions, parts)
        before = cell.new_empty(batch * cells, directions, hidden)
        output = x.new_zeros(batch, cells, hidden)
        given = _pass(x, hidden, walk, gates=gates, bias=bias, product=product, states=states, cell=cell,
                      neighbours_seen=seen, before=before, output=output)  # fmt: skip
        wave_forward, transposed = library(COMPILED).wave_forward, from_states.transpose(1, 2)
        for start, first, count in walk.waves:
            here = states[:, first * batch : (first + count) * batch]
            out = product[: directions * count * batch * 4 * hidden].view(directions, count * batch, 4 * hidden)
            torch.bmm(here, transposed, out=out)
            wave_forward(given, *map(ctypes.c_int64, (start, first, count)))
        ctx.save_for_backward(x, gates, seen, before, to_gates, from_states)
        ctx.walk = walk
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, seen, before, to_gates, from_states = ctx.saved_tensors
        walk, (batch, cells, _), (directions, _, parts) = ctx.walk, x.shape, from_states.shape
        hidden, slots = before.shape[2], walk.slots
        grad = grad.to(x.dtype).contiguous()
        d_gates = _rows_of_gates(x, directions * 4 * hidden)
        d_states = x.new_zeros(directions, slots * batch, parts)
        d_cell = before.new_zeros(directions, slots * batch, hidden)
        d_bias = before.new_zeros(batch, directions, 4 * hidden)
        product = x.new_empty(directions * max(w[2] for w in walk.waves) * batch * 4 * hidden)
        given = _pass(x, hidden, walk, gates=gates, product=product, states=d_states, cell=d_cell, before=before,
                      output=grad, d_gates=d_gates, d_bias=d_bias)  # fmt: skip
        wave_backward = library(COMPILED).wave_backward
        for start, first, count in reversed(walk.waves):
            wave_backward(given, *map(ctypes.c_int64, (start, first, count)))
            wanted = product[: directions * count * batch * 4 * hidden].view(directions, count * batch, 4 * hidden)
            for d in range(directions):
                torch.mm(wanted[d], from_states[d], out=d_states[d, first * batch : (first + count) * batch])
        x_rows, by_direction = x.flatten(0, 1), d_gates.unflatten(1, (directions, -1))
        d_x = torch.mm(d_gates, to_gates).view_as(x) if ctx.needs_input_grad[0] else None
        d_to_gates = torch.mm(d_gates.t(), x_rows).view(directions, 4 * hidden, -1).to(before.dtype)
        d_from_states = torch.stack([torch.mm(by_direction[:, d].t(), seen[:, d]) for d in range(directions)])
        # A state outside goes into the gates of the cells at that edge, through that neighbour's weights.
        d_h_outside = before.new_zeros(directions, hidden)
        on_map, weights = by_direction.unflatten(0, (batch, cells)), from_states.to(before.dtype)
        for places, weight in zip(walk.outside, weights.split(hidden, dim=2), strict=True):
            for d in range(directions):
                at_edge = on_map[:, :, d].index_select(1, places[d]).sum((0, 1), dtype=before.dtype)
                d_h_outside[d] += at_edge @ weight[d]
        d_c_outside = d_cell.sum(1)  # each slot holds d of what its first cell started from
        return d_x, d_to_gates, d_from_states.to(before.dtype), d_bias.sum(0), d_h_outside, d_c_outside, None
