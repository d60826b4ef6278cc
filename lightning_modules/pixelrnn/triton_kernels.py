"""The Triton kernels of the two recurrences; `triton_scan` launches them. Importing this file needs Triton.

Both recurrences are one scan in STEPS: a step is a diagonal of the map (DIAGONAL) or a row of it, a LINE the row or the
column along which a cell state is handed on. One program scans one map in one direction, and nothing is shared between
programs. The second direction of a diagonal scan is TURNED: it counts the columns from the right, and every array keeps
them where they are in the image. A program's threads exchange hidden states, cell states and their gradients through
global memory (which stays in the L2 cache): what one step writes the next reads, and the one barrier that orders the
two ends each step. Therefore no loop around it may be pipelined (num_stages=1): that would load the next step's
neighbours before they are written.

The products' factors are of the gates' type, with PRECISION tf32 rounded to 10 bits of mantissa; everything else is
float32. The weights of the first KEPT sides are loaded once and the compiler keeps them in shared memory for the whole
scan; each step streams the others' from the L2 cache.

Memory, channels last, h = HIDDEN, SIDES = 2 neighbours (above, left) or the row convolution's kernel. Of an image, all
DIRECTIONS side by side in a pixel:
    gates, saved, grad_gates  (HEIGHT, WIDTH, DIRECTIONS, 4h)  input-to-state term; the pre-activations; their gradient
Of a program:
    hidden   (HEIGHT + 1, PADDED, h)  framed by the state outside the image: no neighbour is missing
    cell     (HEIGHT, WIDTH, h)       float32, or (2, lines, h) where no backward pass follows
    carry    (2, lines, h)            float32, the gradient of the cell state handed on
    sums     (1 + SIDES, 4h)          float32, of the gates' gradients: of all cells, of those that met on each side
                                      the state outside
Of a direction: weight (4h, SIDES · h), bias (4h,) and outside (2, h), the hidden and the cell state there, in float32.
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
def in_image(column, turned, WIDTH: tl.constexpr):
    """The image's column that the scan calls `column`."""
    return column + turned * (WIDTH - 1 - 2 * column)


@triton.jit
def frame_cell(number, WIDTH: tl.constexpr, MARGIN: tl.constexpr):
    """Row and column of the numbered cell around the image: first the row above, then the margins, row by row."""
    if MARGIN == 0:
        return 0 * number - 1, number
    beside = number - WIDTH - 2 * MARGIN
    place = beside % (2 * MARGIN) - MARGIN
    row = tl.where(beside < 0, -1, beside // (2 * MARGIN))
    return row, tl.where(beside < 0, number - MARGIN, tl.where(place < 0, place, WIDTH + place))


@triton.jit
def load_four(at, APART: tl.constexpr, mask):
    """The values of o, f, i and g."""
    o, f = tl.load(at, mask=mask, other=0.0), tl.load(at + APART, mask=mask, other=0.0)
    return o, f, tl.load(at + 2 * APART, mask=mask, other=0.0), tl.load(at + 3 * APART, mask=mask, other=0.0)


@triton.jit
def store_four(at, APART: tl.constexpr, o, f, i, g, mask):
    tl.store(at, o, mask=mask)
    tl.store(at + APART, f, mask=mask)
    tl.store(at + 2 * APART, i, mask=mask)
    tl.store(at + 3 * APART, g, mask=mask)


@triton.jit
def weights(weight, k, n, SEEN: tl.constexpr, SIDES: tl.constexpr, HIDDEN: tl.constexpr):
    """Of the four gates, each (k, n), from the first SEEN sides."""
    at = weight + n[None, :] * (SIDES * HIDDEN) + k[:, None]
    return load_four(at, HIDDEN * SIDES * HIDDEN, (k < SEEN * HIDDEN)[:, None] & (n < HIDDEN)[None, :])


@triton.jit
def met(
    hidden,
    framed,
    live,
    k,
    turned,
    SEEN: tl.constexpr,
    DIAGONAL: tl.constexpr,
    PADDED: tl.constexpr,
    MARGIN: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """(m, k): of the hidden states around these cells, those on the first SEEN sides, side by side."""
    if DIAGONAL:  # above, then left
        neighbour = tl.where(k < HIDDEN, k - PADDED * HIDDEN, k - (2 - 2 * turned) * HIDDEN)
    else:  # the columns side by side are also side by side in memory
        neighbour = k - (PADDED + MARGIN) * HIDDEN
    at = hidden + framed[:, None] * HIDDEN + neighbour[None, :]
    return tl.load(at, mask=live[:, None] & (k < SEEN * HIDDEN)[None, :], other=0.0)


@triton.jit(do_not_specialize=["images"])
def forward(
    gates,
    weight,
    bias,
    outside,
    hidden,
    cell,
    saved,
    images,
    DIAGONAL: tl.constexpr,
    SIDES: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    SAVE: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_KEPT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """All steps of one scan: fills `hidden`, and with SAVE what the backward pass needs."""
    LINES: tl.constexpr = HEIGHT if DIAGONAL else WIDTH
    STEPS: tl.constexpr = HEIGHT + WIDTH - 1 if DIAGONAL else HEIGHT
    MARGIN: tl.constexpr = 1 if DIAGONAL else SIDES // 2  # of `hidden`, on either side
    PADDED: tl.constexpr = WIDTH + 2 * MARGIN
    FRAME: tl.constexpr = PADDED + 2 * MARGIN * HEIGHT  # cells
    PIXEL: tl.constexpr = (2 if DIAGONAL else 1) * 4 * HIDDEN  # of `gates`
    program = tl.program_id(0).to(tl.int64)
    direction, image = program // images, program % images
    turned = direction.to(tl.int32) if DIAGONAL else 0
    gates += image * HEIGHT * WIDTH * PIXEL + direction * 4 * HIDDEN
    saved += image * HEIGHT * WIDTH * PIXEL + direction * 4 * HIDDEN
    hidden += program * (HEIGHT + 1) * PADDED * HIDDEN
    cell += program * (HEIGHT * WIDTH if SAVE else 2 * LINES) * HIDDEN
    weight += direction * 4 * HIDDEN * SIDES * HIDDEN
    bias += direction * 4 * HIDDEN
    outside += direction * 2 * HIDDEN

    for m in tl.range(0, FRAME, BLOCK_M, num_stages=1):
        number = m + tl.arange(0, BLOCK_M)
        row, column = frame_cell(number, WIDTH, MARGIN)
        framed = (row + 1) * PADDED + column + MARGIN
        for n0 in tl.range(0, HIDDEN, BLOCK_N, num_stages=1):
            n = n0 + tl.arange(0, BLOCK_N)
            there = (number < FRAME)[:, None] & (n < HIDDEN)[None, :]
            h_edge = tl.broadcast_to(tl.load(outside + n, mask=n < HIDDEN, other=0.0)[None, :], (BLOCK_M, BLOCK_N))
            tl.store(hidden + framed[:, None] * HIDDEN + n[None, :], h_edge, mask=there)
    tl.debug_barrier()  # before the first step reads it

    k_kept = tl.arange(0, BLOCK_KEPT)
    if KEPT:
        w_o, w_f, w_i, w_g = weights(weight, k_kept, tl.arange(0, BLOCK_N), KEPT, SIDES, HIDDEN)
    for step in tl.range(STEPS, num_stages=1):
        first, last = first_and_last(step, DIAGONAL, HEIGHT, WIDTH)
        for m in tl.range(first, last + 1, BLOCK_M, num_stages=1):
            line = m + tl.arange(0, BLOCK_M)
            live = line <= last
            row, column = row_and_column(step, line, DIAGONAL)
            position = row * WIDTH + in_image(column, turned, WIDTH)
            framed = (row + 1) * PADDED + in_image(column, turned, WIDTH) + MARGIN
            if DIAGONAL:
                known, before = column > 0, position - 1 + 2 * turned
            else:
                known, before = row > 0, position - WIDTH
            if not SAVE:
                before = (step + 1) % 2 * LINES + line
            for n0 in tl.range(0, HIDDEN, BLOCK_N, num_stages=1):
                n = n0 + tl.arange(0, BLOCK_N)
                there = live[:, None] & (n < HIDDEN)[None, :]
                # Asked for before the products, which do not need them, and used after.
                at = position[:, None] * PIXEL + n[None, :]
                in_o, in_f, in_i, in_g = load_four(gates + at, HIDDEN, there)
                c_edge = tl.load(outside + HIDDEN + n, mask=n < HIDDEN, other=0.0)
                c = tl.load(cell + before[:, None] * HIDDEN + n[None, :], mask=there & known[:, None], other=0.0)
                c = tl.where(known[:, None], c, c_edge[None, :])

                b_o, b_f, b_i, b_g = load_four(bias + n, HIDDEN, n < HIDDEN)
                nothing = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                o, f, i, g = (
                    nothing + b_o[None, :],
                    nothing + b_f[None, :],
                    nothing + b_i[None, :],
                    nothing + b_g[None, :],
                )
                if KEPT:
                    near = met(hidden, framed, live, k_kept, turned, KEPT, DIAGONAL, PADDED, MARGIN, HIDDEN)
                    o = tl.dot(near, w_o, o, input_precision=PRECISION)
                    f = tl.dot(near, w_f, f, input_precision=PRECISION)
                    i = tl.dot(near, w_i, i, input_precision=PRECISION)
                    g = tl.dot(near, w_g, g, input_precision=PRECISION)
                for k0 in range(KEPT * HIDDEN, SIDES * HIDDEN, BLOCK_K):
                    k = k0 + tl.arange(0, BLOCK_K)
                    h = met(hidden, framed, live, k, turned, SIDES, DIAGONAL, PADDED, MARGIN, HIDDEN)
                    v_o, v_f, v_i, v_g = weights(weight, k, n, SIDES, SIDES, HIDDEN)
                    o = tl.dot(h, v_o, o, input_precision=PRECISION)
                    f = tl.dot(h, v_f, f, input_precision=PRECISION)
                    i = tl.dot(h, v_i, i, input_precision=PRECISION)
                    g = tl.dot(h, v_g, g, input_precision=PRECISION)
                o, f, i, g = o + in_o, f + in_f, i + in_i, g + in_g
                if SAVE:
                    # Not activations: these are as many bytes, and in 16 bits keep 1 − σ precise near saturation.
                    store_four(saved + at, HIDDEN, o, f, i, g, there)
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
    turned,
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
    there = live & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    PIXEL: tl.constexpr = (2 if DIAGONAL else 1) * 4 * HIDDEN
    at = (row * WIDTH + in_image(column, turned, WIDTH))[:, None] * PIXEL + k[None, :]
    return tl.load(grad_gates + at, mask=there[:, None] & (k < 4 * HIDDEN)[None, :], other=0.0)


@triton.jit
def side_weights(weight, side, k, n, SIDES: tl.constexpr, HIDDEN: tl.constexpr):
    """(k, n): of gates k, from the neighbour's features n."""
    at = weight + k[:, None] * (SIDES * HIDDEN) + side * HIDDEN + n[None, :]
    return tl.load(at, mask=(k < 4 * HIDDEN)[:, None] & (n < HIDDEN)[None, :], other=0.0)


@triton.jit(do_not_specialize=["images"])
def backward(
    grad_output,  # of an image (HEIGHT, WIDTH, h); a turned scan's states are one row lower there
    saved,
    cell,
    weight,
    outside,
    grad_gates,
    carry,
    grad_c,  # (lines, h): of the c outside that the line began with
    sums,
    images,
    DIAGONAL: tl.constexpr,
    SIDES: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_KEPT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The same steps, last to first: fills `grad_gates` and `sums`; all other gradients are plain products of them."""
    LINES: tl.constexpr = HEIGHT if DIAGONAL else WIDTH
    STEPS: tl.constexpr = HEIGHT + WIDTH - 1 if DIAGONAL else HEIGHT
    MARGIN: tl.constexpr = 1 if DIAGONAL else SIDES // 2
    FRAME: tl.constexpr = WIDTH + 2 * MARGIN + 2 * MARGIN * HEIGHT  # cells
    PIXEL: tl.constexpr = (2 if DIAGONAL else 1) * 4 * HIDDEN
    BLOCKS: tl.constexpr = (4 * HIDDEN + BLOCK_K - 1) // BLOCK_K  # of one side's 4h products
    program = tl.program_id(0).to(tl.int64)
    direction, image = program // images, program % images
    turned = direction.to(tl.int32) if DIAGONAL else 0
    grad_output += image * HEIGHT * WIDTH * HIDDEN
    saved += image * HEIGHT * WIDTH * PIXEL + direction * 4 * HIDDEN
    grad_gates += image * HEIGHT * WIDTH * PIXEL + direction * 4 * HIDDEN
    cell += program * HEIGHT * WIDTH * HIDDEN
    carry += program * 2 * LINES * HIDDEN
    grad_c += program * LINES * HIDDEN
    sums += program * (1 + SIDES) * 4 * HIDDEN
    weight += direction * 4 * HIDDEN * SIDES * HIDDEN
    outside += direction * 2 * HIDDEN

    k_kept = tl.arange(0, BLOCK_KEPT)
    kept = ()
    for side in tl.static_range(KEPT):
        kept += (side_weights(weight, side, k_kept, tl.arange(0, BLOCK_N), SIDES, HIDDEN),)
    for back in tl.range(STEPS, num_stages=1):
        step = STEPS - 1 - back
        first, last = first_and_last(step, DIAGONAL, HEIGHT, WIDTH)
        for m in tl.range(first, last + 1, BLOCK_M, num_stages=1):
            line = m + tl.arange(0, BLOCK_M)
            live = line <= last
            row, column = row_and_column(step, line, DIAGONAL)
            position = row * WIDTH + in_image(column, turned, WIDTH)
            begun = (back > 0) | (m > first)  # the sums
            if DIAGONAL:
                known, before, handed_on = column > 0, position - 1 + 2 * turned, column < WIDTH - 1
            else:
                known, before, handed_on = row > 0, position - WIDTH, row < HEIGHT - 1
            for n0 in tl.range(0, HIDDEN, BLOCK_N, num_stages=1):
                n = n0 + tl.arange(0, BLOCK_N)
                there = live[:, None] & (n < HIDDEN)[None, :]
                at = position[:, None] * PIXEL + n[None, :]
                o, f, i, g = load_four(saved + at, HIDDEN, there)
                below = (position + turned * WIDTH)[:, None] * HIDDEN + n[None, :]
                dh = tl.load(grad_output + below, mask=there & (row + turned < HEIGHT)[:, None], other=0.0)
                c = tl.load(cell + position[:, None] * HIDDEN + n[None, :], mask=there, other=0.0)
                c_edge = tl.load(outside + HIDDEN + n, mask=n < HIDDEN, other=0.0)
                c_before = tl.load(cell + before[:, None] * HIDDEN + n[None, :], mask=there & known[:, None], other=0.0)
                c_before = tl.where(known[:, None], c_before, c_edge[None, :])
                slot = (step + 1) % 2 * LINES + line
                dc = tl.load(carry + slot[:, None] * HIDDEN + n[None, :], mask=there & handed_on[:, None], other=0.0)
                sum_o, sum_f, sum_i, sum_g = load_four(sums + n, HIDDEN, (n < HIDDEN) & begun)

                product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
                for side in tl.static_range(KEPT):
                    near = met_by(
                        grad_gates, row, column, live, side, k_kept, turned, DIAGONAL, SIDES, HEIGHT, WIDTH, HIDDEN
                    )
                    product = tl.dot(near, kept[side], product, input_precision=PRECISION)
                for block in range(KEPT * BLOCKS, SIDES * BLOCKS):
                    far = block // BLOCKS
                    k = block % BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
                    dz = met_by(grad_gates, row, column, live, far, k, turned, DIAGONAL, SIDES, HEIGHT, WIDTH, HIDDEN)
                    w = side_weights(weight, far, k, n, SIDES, HIDDEN)
                    product = tl.dot(dz, w, product, input_precision=PRECISION)
                dh = dh + product
                o, f, i = tl.sigmoid(o.to(tl.float32)), tl.sigmoid(f.to(tl.float32)), tl.sigmoid(i.to(tl.float32))
                g, c = tanh(g.to(tl.float32)), tanh(c)
                dc += dh * o * (1 - c * c)
                dz_o, dz_f = dh * c * o * (1 - o), dc * c_before * f * (1 - f)
                dz_i, dz_g = dc * g * i * (1 - i), dc * i * (1 - g * g)
                store_four(grad_gates + at, HIDDEN, dz_o, dz_f, dz_i, dz_g, there)
                sum_o, sum_f = sum_o + tl.sum(dz_o, 0), sum_f + tl.sum(dz_f, 0)  # zero where a line is not live
                sum_i, sum_g = sum_i + tl.sum(dz_i, 0), sum_g + tl.sum(dz_g, 0)
                store_four(sums + n, HIDDEN, sum_o, sum_f, sum_i, sum_g, n < HIDDEN)
                dc *= f
                slot = step % 2 * LINES + line
                tl.store(carry + slot[:, None] * HIDDEN + n[None, :], dc, mask=there)
                tl.store(grad_c + line[:, None] * HIDDEN + n[None, :], dc, mask=there & ~known[:, None])
            tl.debug_barrier()  # what these threads wrote, the next step's read, and the sums the next lines'
    for side in tl.range(SIDES, num_stages=1):
        for k0 in tl.range(0, 4 * HIDDEN, BLOCK_N, num_stages=1):
            k = k0 + tl.arange(0, BLOCK_N)
            total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            for m in tl.static_range(0, FRAME, BLOCK_M):  # all asked for at once
                number = m + tl.arange(0, BLOCK_M)
                row, column = frame_cell(number, WIDTH, MARGIN)
                there = number < FRAME
                total += met_by(grad_gates, row, column, there, side, k, turned, DIAGONAL, SIDES, HEIGHT, WIDTH, HIDDEN)
            tl.store(sums + (1 + side) * 4 * HIDDEN + k, tl.sum(total, 0), mask=k < 4 * HIDDEN)
