"""The recurrences on a GPU: one Triton kernel per layer and pass, one program per image and direction.

They read and write maps as the rest of the network has them, channels last: both directions of a diagonal scan lie side
by side in a pixel, and nothing is turned round. The backward kernel forms the gates' gradients and sums them for the
bias and the state outside the image; the weights' gradients are one product over all cells. No atomics: the same inputs
give the same bits. In float32 the products take TF32, as torch's own do, unless
`torch.get_float32_matmul_precision()` is highest.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

LARGEST = 256  # features h
LEAST = 101376  # bytes of shared memory that a program may have on every GPU since 8.6
STREAMED = 81920  # bytes of it that the kernels need beside the weights of one side that they keep
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unavailable(device: torch.device, hidden: int) -> str | None:
    """Why these functions cannot run there, as the end of a sentence, or None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if hidden > LARGEST:
        return f"its kernels hold at most {LARGEST} features, and h is {hidden}"
    if interpreted():
        return None
    if device.type != "cuda" or torch.version.cuda is None:
        return "there is no CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU's compute capability is below 8.0"
    return trial(device)


def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, operation by operation: for tests, in float32 only."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def trial(device: torch.device) -> str | None:
    """Compiles and runs the smallest scan, both passes: what Triton lacks (a C compiler, say) shows only then."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            gates, weight = torch.zeros(1, 1, 1, 2, 64, device=device), torch.zeros(2, 64, 32, device=device)
            bias, outside = torch.zeros(2, 64, device=device), torch.zeros(2, 2, 16, device=device)
            diagonal_scans(gates.requires_grad_(), weight, bias, outside).sum().backward()
    except Exception as error:  # whatever it is, there is another engine
        return f"Triton does not work here ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    return None


def diagonal_scans(gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Tensor:
    """Both scans of a Diagonal BiLSTM's layer: `diagonal_scan` from the top left, and from the top right a row lower.

    Args:
        gates: input-to-state terms (B, H, W, 2, 4h), float32, float16 or bfloat16: the type of the hidden states and
            of the products' factors. Sums, gate arithmetic and cell states are float32.
        weight: (2, 4h, 2h), columns [h above, h at the side] as `nn.Linear` has them.
        bias: (2, 4h), added to the gates.
        outside: (2, 2, h), each direction's hidden and cell state outside the image.

    Returns:
        The sum of both directions' hidden states (B, H, W, h), those from the right one row lower.

    Raises:
        ValueError: shapes or types that do not fit each other.
    """
    return scan(gates, weight, bias, outside, True)


def row_scans(gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Tensor:
    """`row_scan`, channels last.

    Args:
        gates: input-to-state term (B, H, W, 4h), as in `diagonal_scans`.
        weight: (4h, h, k) as `nn.Conv1d` has it, k odd.
        bias: (4h,), added to the gates.
        outside: (2, h), the hidden and the cell state outside the image.

    Returns:
        Hidden states (B, H, W, h), a view of a larger tensor.

    Raises:
        ValueError: shapes or types that do not fit each other.
    """
    flat = weight.transpose(1, 2).flatten(1)  # (4h, k·h), the features of a column side by side
    return scan(gates[:, :, :, None], flat[None], bias[None], outside[None], False)


def scan(gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor, diagonal: bool) -> Tensor:
    directions, features = 2 if diagonal else 1, gates.shape[4]
    hidden, sides = features // 4, weight.shape[2] // max(1, features // 4)
    fit = gates.shape[3] == directions and weight.shape == (directions, features, sides * hidden)
    if features % 4 or not fit or (sides != 2 if diagonal else sides % 2 == 0):
        raise ValueError(f"weights {tuple(weight.shape)} do not fit gates {tuple(gates.shape)}")
    if bias.shape != weight.shape[:2] or outside.shape != (directions, 2, hidden):
        raise ValueError(f"bias {tuple(bias.shape)}, states outside {tuple(outside.shape)} do not fit h = {hidden}")
    if gates.dtype not in DTYPES or hidden > LARGEST or not gates.numel():
        raise ValueError(f"gates {tuple(gates.shape)} of {gates.dtype} are not served")
    inputs = (gates, weight, bias, outside)
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return Scan.apply(*inputs, diagonal, save)


class Scan(torch.autograd.Function):
    """gates (B, H, W, D, 4h), weight (D, 4h, sides · h), (D, 4h), (D, 2, h) → (B, H, W, h); see `triton_kernels`."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor, diagonal: bool, save: bool
    ) -> Tensor:
        from lightning_modules.pixelrnn import triton_kernels

        images, height, width, directions, features = gates.shape
        hidden = features // 4
        sides, lines = weight.shape[2] // hidden, height if diagonal else width
        low, edge = weight.to(gates.dtype).contiguous(), outside.float().contiguous()
        margin = 1 if diagonal else sides // 2
        framed = gates.new_empty(directions, images, 1 + height, width + 2 * margin, hidden)
        rows = (height, width) if save else (2, lines)
        cell = gates.new_empty(directions, images, *rows, hidden, dtype=torch.float32)
        saved = torch.empty_like(gates, memory_format=torch.contiguous_format) if save else framed
        longest = longest_step(height, width, diagonal)
        cut = tiles(True, longest, hidden, sides, gates.dtype, factors(gates), room_on(gates.device))
        with torch.cuda.device_of(gates):
            triton_kernels.forward[(directions * images,)](
                gates.contiguous(),
                low,
                bias.float().contiguous(),
                edge,
                framed,
                cell,
                saved,
                images,
                DIAGONAL=diagonal,
                SIDES=sides,
                HEIGHT=height,
                WIDTH=width,
                HIDDEN=hidden,
                SAVE=save,
                **cut,
            )
        if save:
            ctx.save_for_backward(framed, saved, cell, low, edge)
            ctx.diagonal, ctx.dtypes = diagonal, (weight.dtype, bias.dtype, outside.dtype)
        inside = framed[:, :, :, margin : margin + width]
        if not diagonal:
            return inside[0, :, 1:]
        output = inside[0, :, 1:] + inside[1, :, :-1]
        output[:, 0] = inside[0, :, 1]  # nothing comes from above the image
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        from lightning_modules.pixelrnn import triton_kernels

        framed, saved, cell, weight, edge = ctx.saved_tensors
        directions, images, height, width, hidden = cell.shape
        sides, lines = weight.shape[2] // hidden, height if ctx.diagonal else width
        grad_gates = torch.empty_like(saved)
        carry = cell.new_empty(directions, images, 2, lines, hidden)
        grad_c = cell.new_empty(directions, images, lines, hidden)
        sums = cell.new_empty(directions, images, 1 + sides, 4 * hidden)
        longest = longest_step(height, width, ctx.diagonal)
        cut = tiles(False, longest, hidden, sides, saved.dtype, factors(saved), room_on(saved.device))
        with torch.cuda.device_of(saved):
            triton_kernels.backward[(directions * images,)](
                grad_output.to(saved.dtype).contiguous(),
                saved,
                cell,
                weight,
                edge,
                grad_gates,
                carry,
                grad_c,
                sums,
                images,
                DIAGONAL=ctx.diagonal,
                SIDES=sides,
                HEIGHT=height,
                WIDTH=width,
                HIDDEN=hidden,
                **cut,
            )
        for_weight, for_outside = ctx.needs_input_grad[1], ctx.needs_input_grad[3]
        weight_type, bias_type, outside_type = ctx.dtypes
        sums = sums.sum(1)  # (D, 1 + sides, 4h)
        return (
            grad_gates,
            grad_of_weight(grad_gates, framed, sides, ctx.diagonal).to(weight_type) if for_weight else None,
            sums[:, 0].to(bias_type),
            grad_of_outside(sums[:, 1:], weight, grad_c).to(outside_type) if for_outside else None,
            None,
            None,
        )


def grad_of_weight(grad_gates: Tensor, framed: Tensor, sides: int, diagonal: bool) -> Tensor:
    """(D, 4h, sides · h), in float32 where the device can: the product of all cells with their neighbours."""
    images, height, width, directions, _ = grad_gates.shape
    above = framed[:, :, :-1]
    if diagonal:
        direction, *image, column, _ = framed.stride()
        size = (directions, images, height, width, framed.shape[4])
        # Of the second direction two columns further to the right.
        beside = framed[:, :, 1:].as_strided(size, (direction + 2 * column, *image, column, 1))
        near = [above[:, :, :, 1:-1], beside]
    else:
        near = [above[:, :, :, side : side + width] for side in range(sides)]
    cells = grad_gates.flatten(0, 2).permute(1, 2, 0)
    neighbours = torch.cat(near, dim=4).flatten(1, 3)
    if cells.is_cuda and cells.dtype != torch.float32:
        return torch.bmm(cells, neighbours, out_dtype=torch.float32)
    return torch.bmm(cells, neighbours)


def grad_of_outside(sums: Tensor, weight: Tensor, grad_c: Tensor) -> Tensor:
    """(D, 2, h), float32: `sums` (D, sides, 4h) are of the gates' gradients where they met the hidden state outside."""
    by_side = weight.unflatten(2, (sums.shape[1], -1))  # (D, 4h, sides, h)
    grad_h = (sums.mT[..., None] * by_side).sum((1, 2))
    return torch.stack([grad_h, grad_c.sum((1, 2))], dim=1)


def longest_step(height: int, width: int, diagonal: bool) -> int:
    """In cells."""
    return min(height, width) if diagonal else width


def factors(gates: Tensor) -> str:
    """What a product's factors are taken as: `tf32` where float32 may be rounded for the tensor cores, else `ieee`."""
    allowed = torch.get_float32_matmul_precision() != "highest"
    return "tf32" if gates.dtype == torch.float32 and allowed else "ieee"


@functools.cache
def room_on(device: torch.device) -> int:
    """Bytes of shared memory that a program may have."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else LEAST


def tiles(
    forward: bool, lines: int, hidden: int, sides: int, dtype: torch.dtype, precision: str = "ieee", room: int = LEAST
) -> dict[str, Any]:
    """How a kernel cuts its work up: so that (almost) no register spills and `room` bytes of shared memory are enough.

    A step's products are those of (lines, factors) with (factors, hidden), taken in tiles of BLOCK_M × BLOCK_K with
    BLOCK_K × BLOCK_N. Where all weights fit in 64 KB (in 16 bits: a diagonal scan's up to h = 64), they stay on chip;
    else those of one side do, where they and what is streamed beside them fit (in 16 bits h = 128 on an H100: compiled
    for it, 200,704 bytes of 232,448 forward and 172,032 backward, 252 and 255 registers, none spilled). In float32,
    which the tensor cores multiply as TF32 alone, they are kept only if few: products without them need the registers.
    """
    products, inner = (4, sides * hidden) if forward else (sides, 4 * hidden)
    m, n, k = min(64, power_of_two(lines)), power_of_two(hidden), power_of_two(inner)
    narrow = dtype != torch.float32
    kept = sides if products * n * k * dtype.itemsize <= (65536 if narrow else 16384) else 0
    if kept:
        m = min(m, 32)
    elif narrow:
        if m <= 32 and 4 * n * n * dtype.itemsize + STREAMED <= room:
            kept = 1
        n = min(n, 64) if m > 32 or n > 128 else n
        k = 32 if forward and max(m, n // 2) > 32 else 64  # the forward kernel's are four tiles at a time
    else:
        n, k = min(n, 64 if precision == "tf32" and m <= 32 else 32), 32
    return {
        "KEPT": kept,
        "BLOCK_M": m,
        "BLOCK_N": n,
        "BLOCK_K": k,
        "BLOCK_KEPT": power_of_two((kept if forward else 4) * hidden) if kept else 16,
        "num_warps": 4 if hidden <= 32 and m <= 32 else 8,
        "num_stages": 3 if narrow else 2,
        "PRECISION": precision,
    }


def power_of_two(size: int) -> int:
    """The smallest that is not less, at least the 16 that `tl.dot` needs."""
    return max(16, 1 << (size - 1).bit_length())
