"""The Triton kernels of the two recurrences; `triton_scan` launches them. Importing this file needs Triton.

Both recurrences are one scan in STEPS: a step is a diagonal of the map (DIAGONAL) or a row of it, a LINE the row or the
column along which a cell state is handed on. One program scans one map, and nothing is shared between programs. Its
threads exchange hidden states, cell states and their gradients through global memory (which stays in the L2 cache):
what one step writes the next reads, and the one barrier that orders the two ends each step. Therefore no loop around it
may be pipelined (num_stages=1): that would load the next step's neighbours before they are written.

The products' factors are of the gates' type, with PRECISION tf32 rounded to 10 bits of mantissa; everything else is
float32. With RESIDENT the weights are loaded once and the compiler keeps them in shared memory for the whole scan; else
each step streams them from the L2 cache.

Memory of one map, channels last, h = HIDDEN, SIDES = 2 neighbours (above, left) or the row convolution's KERNEL:
    gates, saved, grad_gates  (HEIGHT, WIDTH, 4h)     input-to-state term; all of the pre-activations; their gradient
    hidden                    (HEIGHT + 1, PADDED, h) framed by the state outside the image: no neighbour is missing
    cell                      (HEIGHT, WIDTH, h)      float32, or (2, lines, h) where no backward pass follows
    carry                     (2, lines, h)           float32, the gradient of the cell state handed on
    weight                    (4h, SIDES · h)
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def first_and_last(step, DIAGONAL: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """The lines that the step's cells lie on."""
    if DIAGONAL:
        return tl.maximum(step - WIDTH + 1, 0), tl.minimum(step, HEIGHT - 1)
    return 0, WIDTH - 1


@triton.jit
def row_and_column(step, line, DIAGONAL: tl.constexpr):
    if DIAGONAL:
        return line, step - line
    return step + 0 * line, line


@triton.jit
def weights(weight, k, n, SIDES: tl.constexpr, HIDDEN: tl.constexpr):
    """Of the four gates, each (k, n)."""
    at = weight + n[None, :] * (SIDES * HIDDEN) + k[:, None]
    there = (k < SIDES * HIDDEN)[:, None] & (n < HIDDEN)[None, :]
    GATE: tl.constexpr = HIDDEN * SIDES * HIDDEN
    o = tl.load(at, mask=there, other=0.0)
    f = tl.load(at + GATE, mask=there, other=0.0)
    i = tl.load(at + 2 * GATE, mask=there, other=0.0)
    g = tl.load(at + 3 * GATE, mask=there, other=0.0)
    return o, f, i, g


@triton.jit(do_not_specialize=["maps"])
def forward(
    gates,
    weight,
    c_outside,
    hidden,
    cell,
    saved,
    maps,  # scanned by each of the weights
    DIAGONAL: tl.constexpr,
    SIDES: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    HIDDEN: tl.constexpr,
    SAVE: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """All steps of one scan: fills `hidden`, and with SAVE what the backward pass needs."""
    LINES: tl.constexpr = HEIGHT if DIAGONAL else WIDTH
    STEPS: tl.constexpr = HEIGHT + WIDTH - 1 if DIAGONAL else HEIGHT
    MARGIN: tl.constexpr = 1 if DIAGONAL else SIDES // 2  # of `hidden`, to the left
    program = tl.program_id(0).to(tl.int64)
    direction = program // maps
    gates += program * HEIGHT * WIDTH * 4 * HIDDEN
    saved += program * HEIGHT * WIDTH * 4 * HIDDEN
    hidden += program * (HEIGHT + 1) * PADDED * HIDDEN
    cell += program * (HEIGHT * WIDTH if SAVE else 2 * LINES) * HIDDEN
    weight += direction * 4 * HIDDEN * SIDES * HIDDEN
    c_outside += direction * HIDDEN

    if RESIDENT:
        w_o, w_f, w_i, w_g = weights(weight, tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N), SIDES, HIDDEN)
    for step in tl.range(STEPS, num_stages=1):
        first, last = first_and_last(step, DIAGONAL, HEIGHT, WIDTH)
        for m in tl.range(first, last + 1, BLOCK_M, num_stages=1):
            line = m + tl.arange(0, BLOCK_M)
            live = line <= last
            row, column = row_and_column(step, line, DIAGONAL)
            position = row * WIDTH + column
            framed = (row + 1) * PADDED + column + MARGIN
            if DIAGONAL:
                known, before = column > 0, position - 1
            else:
                known, before = row > 0, position - WIDTH
            if not SAVE:
                before = (step + 1) % 2 * LINES + line
            for n0 in tl.range(0, HIDDEN, BLOCK_N, num_stages=1):
                n = n0 + tl.arange(0, BLOCK_N)
                there = live[:, None] & (n < HIDDEN)[None, :]
                # Asked for before the products, which do not need them, and used after.
                at = position[:, None] * (4 * HIDDEN) + n[None, :]
                in_o = tl.load(gates + at, mask=there, other=0.0)
                in_f = tl.load(gates + at + HIDDEN, mask=there, other=0.0)
                in_i = tl.load(gates + at + 2 * HIDDEN, mask=there, other=0.0)
                in_g = tl.load(gates + at + 3 * HIDDEN, mask=there, other=0.0)
                c_edge = tl.load(c_outside + n, mask=n < HIDDEN, other=0.0)
                c = tl.load(cell + before[:, None] * HIDDEN + n[None, :], mask=there & known[:, None], other=0.0)
                c = tl.where(known[:, None], c, c_edge[None, :])

                o = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                f = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                i = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                g = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                for k0 in range(0, SIDES * HIDDEN, BLOCK_K):
                    k = k0 + tl.arange(0, BLOCK_K)
                    if DIAGONAL:  # above, then left
                        neighbour = tl.where(k < HIDDEN, k - PADDED * HIDDEN, k - 2 * HIDDEN)
                    else:  # the columns side by side are also side by side in memory
                        neighbour = k - (PADDED + MARGIN) * HIDDEN
                    h = tl.load(
                        hidden + framed[:, None] * HIDDEN + neighbour[None, :],
                        mask=live[:, None] & (k < SIDES * HIDDEN)[None, :],
                        other=0.0,
                    )
                    if not RESIDENT:
                        w_o, w_f, w_i, w_g = weights(weight, k, n, SIDES, HIDDEN)
                    o = tl.dot(h, w_o, o, input_precision=PRECISION)
                    f = tl.dot(h, w_f, f, input_precision=PRECISION)
                    i = tl.dot(h, w_i, i, input_precision=PRECISION)
                    g = tl.dot(h, w_g, g, input_precision=PRECISION)
                o, f, i, g = o + in_o, f + in_f, i + in_i, g + in_g
                if SAVE:
                    # Not activations: these are as many bytes, and in 16 bits keep 1 − σ precise near saturation.
                    tl.store(saved + at, o, mask=there)
                    tl.store(saved + at + HIDDEN, f, mask=there)
                    tl.store(saved + at + 2 * HIDDEN, i, mask=there)
                    tl.store(saved + at + 3 * HIDDEN, g, mask=there)
                c = tl.sigmoid(f) * c + tl.sigmoid(i) * tanh(g)
                now = position if SAVE else step % 2 * LINES + line
                tl.store(cell + now[:, None] * HIDDEN + n[None, :], c, mask=there)
                tl.store(hidden + framed[:, None] * HIDDEN + n[None, :], tl.sigmoid(o) * tanh(c), mask=there)
        tl.debug_barrier()  # what this step's threads wrote, the next step's read


@triton.jit
def met_by(
    grad_gates,
    row,
    column,
    live,
    side,
    k,
    DIAGONAL: tl.constexpr,
    SIDES: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """(m, k): features k of the gradient of the gates that had these cells for a neighbour on `side`; else zero."""
    if DIAGONAL:
        row, column = row + 1 - side, column + side
    else:
        row, column = row + 1, column + SIDES // 2 - side
    there = live & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    at = (row * WIDTH + column)[:, None] * (4 * HIDDEN) + k[None, :]
    return tl.load(grad_gates + at, mask=there[:, None] & (k < 4 * HIDDEN)[None, :], other=0.0)


@triton.jit
def side_weights(weight, side, k, n, SIDES: tl.constexpr, HIDDEN: tl.constexpr):
    """(k, n): of gates k, from the neighbour's features n."""
    at = weight + k[:, None] * (SIDES * HIDDEN) + side * HIDDEN + n[None, :]
    return tl.load(at, mask=(k < 4 * HIDDEN)[:, None] & (n < HIDDEN)[None, :], other=0.0)


@triton.jit(do_not_specialize=["maps"])
def backward(
    grad_hidden,  # (HEIGHT, WIDTH, h)
    saved,
    cell,
    weight,
    c_outside,
    grad_gates,
    carry,
    grad_c,  # (lines, h): of the c outside that the line began with
    maps,
    DIAGONAL: tl.constexpr,
    SIDES: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The same steps, last to first: fills `grad_gates`, from which all other gradients are plain products and sums."""
    LINES: tl.constexpr = HEIGHT if DIAGONAL else WIDTH
    STEPS: tl.constexpr = HEIGHT + WIDTH - 1 if DIAGONAL else HEIGHT
    BLOCKS: tl.constexpr = (4 * HIDDEN + BLOCK_K - 1) // BLOCK_K  # of one side's 4h products
    program = tl.program_id(0).to(tl.int64)
    direction = program // maps
    grad_hidden += program * HEIGHT * WIDTH * HIDDEN
    saved += program * HEIGHT * WIDTH * 4 * HIDDEN
    grad_gates += program * HEIGHT * WIDTH * 4 * HIDDEN
    cell += program * HEIGHT * WIDTH * HIDDEN
    carry += program * 2 * LINES * HIDDEN
    grad_c += program * LINES * HIDDEN
    weight += direction * 4 * HIDDEN * SIDES * HIDDEN
    c_outside += direction * HIDDEN

    if RESIDENT:
        k_all = tl.arange(0, BLOCK_K)
        resident = ()
        for side in tl.static_range(SIDES):
            resident += (side_weights(weight, side, k_all, tl.arange(0, BLOCK_N), SIDES, HIDDEN),)
    for back in tl.range(STEPS, num_stages=1):
        step = STEPS - 1 - back
        first, last = first_and_last(step, DIAGONAL, HEIGHT, WIDTH)
        for m in tl.range(first, last + 1, BLOCK_M, num_stages=1):
            line = m + tl.arange(0, BLOCK_M)
            live = line <= last
            row, column = row_and_column(step, line, DIAGONAL)
            position = row * WIDTH + column
            if DIAGONAL:
                known, before, handed_on = column > 0, position - 1, column < WIDTH - 1
            else:
                known, before, handed_on = row > 0, position - WIDTH, row < HEIGHT - 1
            for n0 in tl.range(0, HIDDEN, BLOCK_N, num_stages=1):
                n = n0 + tl.arange(0, BLOCK_N)
                there = live[:, None] & (n < HIDDEN)[None, :]
                at = position[:, None] * (4 * HIDDEN) + n[None, :]
                o = tl.load(saved + at, mask=there, other=0.0)
                f = tl.load(saved + at + HIDDEN, mask=there, other=0.0)
                i = tl.load(saved + at + 2 * HIDDEN, mask=there, other=0.0)
                g = tl.load(saved + at + 3 * HIDDEN, mask=there, other=0.0)
                dh = tl.load(grad_hidden + position[:, None] * HIDDEN + n[None, :], mask=there, other=0.0)
                c = tl.load(cell + position[:, None] * HIDDEN + n[None, :], mask=there, other=0.0)
                c_edge = tl.load(c_outside + n, mask=n < HIDDEN, other=0.0)
                c_before = tl.load(cell + before[:, None] * HIDDEN + n[None, :], mask=there & known[:, None], other=0.0)
                c_before = tl.where(known[:, None], c_before, c_edge[None, :])
                slot = (step + 1) % 2 * LINES + line
                dc = tl.load(carry + slot[:, None] * HIDDEN + n[None, :], mask=there & handed_on[:, None], other=0.0)

                product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                if RESIDENT:
                    for side in tl.static_range(SIDES):
                        dz = met_by(grad_gates, row, column, live, side, k_all, DIAGONAL, SIDES, HEIGHT, WIDTH, HIDDEN)
                        product = tl.dot(dz, resident[side], product, input_precision=PRECISION)
                else:
                    for block in range(SIDES * BLOCKS):
                        side = block // BLOCKS
                        k = block % BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
                        dz = met_by(grad_gates, row, column, live, side, k, DIAGONAL, SIDES, HEIGHT, WIDTH, HIDDEN)
                        w = side_weights(weight, side, k, n, SIDES, HIDDEN)
                        product = tl.dot(dz, w, product, input_precision=PRECISION)
                dh = dh + product
                o, f, i = tl.sigmoid(o.to(tl.float32)), tl.sigmoid(f.to(tl.float32)), tl.sigmoid(i.to(tl.float32))
                g, c = tanh(g.to(tl.float32)), tanh(c)
                dc += dh * o * (1 - c * c)
                tl.store(grad_gates + at, dh * c * o * (1 - o), mask=there)
                tl.store(grad_gates + at + HIDDEN, dc * c_before * f * (1 - f), mask=there)
                tl.store(grad_gates + at + 2 * HIDDEN, dc * g * i * (1 - i), mask=there)
                tl.store(grad_gates + at + 3 * HIDDEN, dc * i * (1 - g * g), mask=there)
                dc *= f
                slot = step % 2 * LINES + line
                tl.store(carry + slot[:, None] * HIDDEN + n[None, :], dc, mask=there)
                tl.store(grad_c + line[:, None] * HIDDEN + n[None, :], dc, mask=there & ~known[:, None])
        tl.debug_barrier()  # what this step's threads wrote, the next step's read
