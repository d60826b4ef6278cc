"""The fused engine of both recurrences: the map is walked in waves, and the backward pass is written out.

A wave is a set of cells that can be computed at once: a diagonal (from both corners together), or a row. All cells of
a wave are one product of [features read, neighbours' hidden states] with all of the layer's weights. Only cells of the
image are computed, and buffers are laid out wave after wave, so that a wave and its neighbours are slices. Weight
gradients are added up wave by wave, while a wave's gate gradients are still in the processor's cache. `diagonal_scan`
and `row_scan` are the readable forms that this is tested against.

Legend: D directions, N cells in wave order, B images, M = H·W cells of the map, K features of one product.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.pixelrnn.recurrence import diagonals


class Move(NamedTuple):
    """`count` states of one wave, from cell `source` on, go to the next wave's cells from `target` on; its other cells
    get the state outside the image."""

    target: int
    source: int
    count: int


NOTHING = Move(0, 0, 0)


class Waves(NamedTuple):
    """A recurrence's geometry; −1 stands for what lies outside the image.

    reads (D, taps, N): the map cell whose features each tap of a wave cell reads.
    writes (D, N): the map cell that a wave cell's hidden state is added to.
    starts: where each wave begins in N, and N.
    hidden: for each wave the moves into its neighbour slots from the wave before; cell: the cell states' move.
    """

    reads: Tensor
    writes: Tensor
    starts: list[int]
    hidden: list[list[Move]]
    cell: list[Move]


@lru_cache(maxsize=8)
def diagonal_waves(height: int, width: int) -> Waves:
    """Diagonals from the top left and, mirrored, from the top right, whose output goes one row down.

    Slot 0 is the neighbour above, slot 1 the one to the left, which also hands on its cell state.
    """
    order, lengths = diagonals(height, width)
    row, column = order // width, order % width
    mirrored = row * width + width - 1 - column
    down = torch.where(row + 1 < height, mirrored + width, -1)
    hidden, cell = [[NOTHING, NOTHING]], [NOTHING]
    for number in range(len(lengths) - 1):
        top, next_top = max(0, number - width + 1), max(0, number - width + 2)
        bottom, next_bottom = min(number, height - 1), min(number + 1, height - 1)
        above = Move(top + 1 - next_top, 0, min(next_bottom, bottom + 1) - top)
        left = Move(0, next_top - top, min(next_bottom, bottom) - next_top + 1)
        hidden.append([above, left])
        cell.append(left)
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    return Waves(torch.stack([order, mirrored])[:, None], torch.stack([order, down]), starts, hidden, cell)


@lru_cache(maxsize=8)
def row_waves(height: int, width: int, kernel: int) -> Waves:
    """Rows from the top; slot j is the cell j − kernel // 2 columns along the row above.

    The taps read the cell itself and those to its left: mask B leaves nothing of a kernel's right half.
    """
    reach = kernel // 2
    column = torch.arange(width).repeat(height)
    cells = torch.arange(height * width)
    taps = [torch.where(column + offset >= 0, cells + offset, -1) for offset in range(-reach, 1)]
    along = [Move(max(0, -o), max(0, o), max(0, width - abs(o))) for o in range(-reach, reach + 1)]
    starts = list(range(0, height * width + 1, width))
    hidden = [[NOTHING] * kernel, *[along] * (height - 1)]
    return Waves(torch.stack(taps)[None], cells[None], starts, hidden, [NOTHING, *[Move(0, 0, width)] * (height - 1)])


def wave_lstm(x: Tensor, weight: Tensor, bias: Tensor, h_outside: Tensor, c_outside: Tensor, waves: Waves) -> Tensor:
    """An LSTM over the waves of a map.

    Under autocast the products are in its type; gates and cell states stay in the weights'.

    Args:
        x: features (B, M, C), channels last.
        weight: (D, 4h, K), K = taps · C + slots · h, gates in the order o, f, i, g.
        bias: (D, 4h).
        h_outside, c_outside: (D, h), the state outside the image.
        waves: which cell comes after which.

    Returns:
        Hidden states, the directions' sum (B, M, h).
    """
    waves = waves._replace(reads=waves.reads.to(x.device), writes=waves.writes.to(x.device))
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else weight.dtype
    with torch.autocast(x.device.type, enabled=False):
        return _WaveLSTM.apply(x.to(dtype), weight, bias, h_outside, c_outside, waves)


class _WaveLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, h_outside: Tensor, c_outside: Tensor, waves: Waves
    ) -> Tensor:
        (batch, cells, channels), (directions, _, width) = x.shape, weight.shape
        hidden_size, state_from = h_outside.shape[1], waves.reads.shape[1] * channels
        slots = [slice(first, first + hidden_size) for first in range(state_from, width, hidden_size)]
        inputs = x.new_empty(directions, cells * batch, width)
        for read, direction in zip(waves.reads, inputs, strict=True):
            for tap, cells_read in enumerate(read):
                _to_waves(x, cells_read, direction[:, tap * channels : (tap + 1) * channels])
        mixed = x.dtype != weight.dtype
        gates = weight.new_empty(directions, cells * batch, 4 * hidden_size)
        before = weight.new_empty(directions, cells * batch, hidden_size)  # the cell state that each cell starts from
        hidden = x.new_empty(directions, cells * batch, hidden_size)
        product, offset = weight.to(x.dtype).transpose(1, 2), bias[:, None].to(x.dtype)
        hidden_edge, cell_edge = h_outside[:, None].to(x.dtype), c_outside[:, None]
        state = cell = hidden.new_empty(directions, 0, hidden_size)
        for wave, here in enumerate(_slices(waves, batch)):
            for slot, move in zip(slots, waves.hidden[wave], strict=True):
                _hand_on(inputs[:, here, slot], state, move, batch, hidden_edge)
            _hand_on(before[:, here], cell, waves.cell[wave], batch, cell_edge)
            gate = gates[:, here]
            if mixed:
                gate.copy_(torch.baddbmm(offset, inputs[:, here], product))
            else:
                torch.baddbmm(offset, inputs[:, here], product, out=gate)
            gate[..., : 3 * hidden_size].sigmoid_()
            gate[..., 3 * hidden_size :].tanh_()
            o, f, i, g = gate.chunk(4, 2)
            cell = torch.mul(f, before[:, here]).addcmul_(i, g)
            state = hidden[:, here].copy_(torch.tanh(cell).mul_(o))
        ctx.save_for_backward(inputs, gates, before, weight)
        ctx.waves, ctx.map_shape = waves, x.shape
        return _sum_on_map(hidden, waves.writes, batch, cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, gates, before, weight = ctx.saved_tensors
        waves, (batch, cells, channels) = ctx.waves, ctx.map_shape
        (directions, _, width), hidden_size, dtype = weight.shape, before.shape[2], inputs.dtype
        state_from = waves.reads.shape[1] * channels
        slots = [slice(first, first + hidden_size) for first in range(state_from, width, hidden_size)]
        to_inputs = weight.to(dtype)
        d_hidden = torch.empty_like(before)
        for written, direction in zip(waves.writes, d_hidden, strict=True):
            _to_waves(grad.to(weight.dtype), written, direction)
        d_read = inputs.new_empty(directions, inputs.shape[1], state_from)
        d_weight, d_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[:2])
        d_h_outside, d_c_outside = (weight.new_zeros(directions, hidden_size) for _ in range(2))
        places = _slices(waves, batch)
        d_cell = torch.zeros_like(before[:, places[-1]])
        for wave in reversed(range(len(places))):
            here, there = places[wave], places[max(0, wave - 1)]
            d_gate, d_before = _lstm_backward(gates[:, here], before[:, here], d_hidden[:, here], d_cell)
            d_bias += d_gate.sum(1)
            d_gate = d_gate.to(dtype)
            if dtype == weight.dtype:
                d_weight.baddbmm_(d_gate.transpose(1, 2), inputs[:, here])
            else:
                d_weight += torch.bmm(d_gate.transpose(1, 2), inputs[:, here])
            d_input = torch.bmm(d_gate, to_inputs)
            d_read[:, here] = d_input[..., :state_from]
            for slot, move in zip(slots, waves.hidden[wave], strict=True):
                _hand_back(d_input[..., slot], move, d_hidden[:, there], batch, d_h_outside)
            d_cell = torch.zeros_like(before[:, there])
            _hand_back(d_before, waves.cell[wave], d_cell, batch, d_c_outside)
        d_x = None
        if ctx.needs_input_grad[0]:
            by_tap = d_read.unflatten(2, (-1, channels)).transpose(1, 2)
            d_x = _sum_on_map(by_tap, waves.reads, batch, cells)
        return d_x, d_weight, d_bias, d_h_outside, d_c_outside, None


def _lstm_backward(gates: Tensor, before: Tensor, d_hidden: Tensor, d_cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of one LSTM step: of its pre-activations (…, 4h), and of the cell state that it started from.

    `gates` are o, f, i, g after their functions; `d_cell`, what later steps want of the cell state, is overwritten.
    """
    hidden_size = before.shape[-1]
    o, f, i, g = gates.chunk(4, -1)
    tanh = torch.tanh(torch.mul(f, before).addcmul_(i, g))
    d_cell += torch.ops.aten.tanh_backward(d_hidden * o, tanh)
    d_gates = torch.empty_like(gates)
    d_o, d_f, d_i, d_g = d_gates.chunk(4, -1)
    torch.mul(d_hidden, tanh, out=d_o)
    torch.mul(d_cell, before, out=d_f)
    torch.mul(d_cell, g, out=d_i)
    torch.mul(d_cell, i, out=d_g)
    sigmoids = d_gates[..., : 3 * hidden_size]
    torch.ops.aten.sigmoid_backward.grad_input(sigmoids, gates[..., : 3 * hidden_size], grad_input=sigmoids)
    torch.ops.aten.tanh_backward.grad_input(d_g, g, grad_input=d_g)
    return d_gates, d_cell.mul_(f)


def _slices(waves: Waves, batch: int) -> list[slice]:
    """The rows of each wave in a buffer (·, N·B, ·)."""
    return [slice(a * batch, b * batch) for a, b in zip(waves.starts, waves.starts[1:], strict=False)]


def _hand_on(into: Tensor, state: Tensor, move: Move, batch: int, outside: Tensor) -> None:
    """Fills a wave's neighbour slot: states of the wave before, and what is outside for the other cells."""
    first, last = move.target * batch, (move.target + move.count) * batch
    into[:, first:last] = state[:, move.source * batch : (move.source + move.count) * batch]
    for rest in (into[:, :first], into[:, last:]):
        if rest.shape[1]:
            rest.copy_(outside)


def _hand_back(part: Tensor, move: Move, into: Tensor, batch: int, outside: Tensor) -> None:
    """The gradient of `_hand_on`, added to that of the wave before and to that of what is outside."""
    first, last = move.target * batch, (move.target + move.count) * batch
    if move.count:
        into[:, move.source * batch : (move.source + move.count) * batch] += part[:, first:last]
    for rest in (part[:, :first], part[:, last:]):
        if rest.shape[1]:
            outside += rest.sum(1)


def _inverse(index: Tensor, size: int) -> Tensor:
    """For each of `size` cells the place in `index` that names it, −1 where none does."""
    found = index.new_full((size,), -1)
    named = index >= 0
    found[index[named]] = torch.arange(len(index), device=index.device)[named]
    return found


def _to_waves(rows: Tensor, cells: Tensor, into: Tensor) -> None:
    """Picks `cells` (N,), −1 for zeros, of every image of a map (B, M, C) → `into` (N·B, C)."""
    batch, size, channels = rows.shape
    index = cells.clamp(min=0)[:, None] + size * torch.arange(batch, device=cells.device)
    torch.index_select(rows.reshape(-1, channels), 0, index.flatten(), out=into)
    if (missing := (cells < 0).nonzero()[:, 0]).numel():
        into.view(len(cells), batch, channels).index_fill_(0, missing, 0)


def _to_map(waves: Tensor, cells: Tensor, batch: int) -> Tensor:
    """Rows of waves (N·B, C) for the map's `cells` (M,), places in N, −1 for zeros → (B, M, C)."""
    index = cells.clamp(min=0) * batch + torch.arange(batch, device=cells.device)[:, None]
    picked = waves.index_select(0, index.flatten()).view(batch, len(cells), -1)
    if (missing := (cells < 0).nonzero()[:, 0]).numel():
        picked.index_fill_(1, missing, 0)
    return picked


def _sum_on_map(waves: Tensor, cells: Tensor, batch: int, size: int) -> Tensor:
    """Waves' rows (…, N·B, C), each written to the map's `cells` (…, N), summed over … → (B, size, C)."""
    parts = zip(waves.flatten(0, -3), cells.flatten(0, -2), strict=True)
    total = None
    for rows, written in parts:
        part = _to_map(rows, _inverse(written, size), batch)
        total = part if total is None else total.add_(part)
    return total
