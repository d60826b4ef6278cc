"""The recurrences on a GPU: one Triton kernel per layer and pass, one program per image and direction.

The backward kernel forms the gates' gradients alone; those of the weights are one product over all cells, and those of
the state outside the image sums over the cells that met it. No atomics: the same inputs give the same bits. In float32
the products take TF32, as torch's own do, unless `torch.get_float32_matmul_precision()` is highest.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

LARGEST = 256  # features h
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
            gates, weight = torch.zeros(1, 1, 1, 1, 64, device=device), torch.zeros(1, 64, 32, device=device)
            edge = torch.zeros(1, 16, device=device)
            diagonal_scans(gates.requires_grad_(), weight, edge, edge).sum().backward()
    except Exception as error:  # whatever it is, there is another engine
        return f"Triton does not work here ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    return None


def diagonal_scans(gates: Tensor, weight: Tensor, h_outside: Tensor, c_outside: Tensor) -> Tensor:
    """`diagonal_scan` of D maps per image, each with weights of its own and turned so that it starts at the top left.

    Args:
        gates: input-to-state terms (D, B, H, W, 4h), float32, float16 or bfloat16: the type of the hidden states and
            of the products' factors. Sums, gate arithmetic and cell states are float32.
        weight: (D, 4h, 2h), columns [h above, h left] as `nn.Linear` has them.
        h_outside, c_outside: (D, h), the state outside the image.

    Returns:
        Hidden states (D, B, H, W, h), a view of a larger tensor.

    Raises:
        ValueError: shapes or types that do not fit each other.
    """
    return scan(gates, weight, h_outside, c_outside, True)


def row_scans(gates: Tensor, weight: Tensor, h_outside: Tensor, c_outside: Tensor) -> Tensor:
    """`row_scan`, channels last.

    Args:
        gates: input-to-state term (B, H, W, 4h), as in `diagonal_scans`.
        weight: (4h, h, k) as `nn.Conv1d` has it, k odd.
        h_outside, c_outside: (h,), the state outside the image.

    Returns:
        Hidden states (B, H, W, h), a view of a larger tensor.

    Raises:
        ValueError: shapes or types that do not fit each other.
    """
    flat = weight.transpose(1, 2).flatten(1)  # (4h, k·h), the features of a column side by side
    return scan(gates[None], flat[None], h_outside[None], c_outside[None], False)[0]


def scan(gates: Tensor, weight: Tensor, h_outside: Tensor, c_outside: Tensor, diagonal: bool) -> Tensor:
    directions, features = gates.shape[0], gates.shape[4]
    hidden, sides = features // 4, weight.shape[2] // max(1, features // 4)
    expected = (directions, 4 * hidden, sides * hidden)
    if features % 4 or weight.shape != expected or (sides != 2 if diagonal else sides % 2 == 0):
        raise ValueError(f"weights {tuple(weight.shape)} do not fit gates {tuple(gates.shape)}")
    if not h_outside.shape == c_outside.shape == (directions, hidden):
        raise ValueError(f"states outside {tuple(h_outside.shape)}, {tuple(c_outside.shape)} do not fit h = {hidden}")
    if gates.dtype not in DTYPES or hidden > LARGEST or not gates.numel():
        raise ValueError(f"gates {tuple(gates.shape)} of {gates.dtype} are not served")
    inputs = (gates, weight, h_outside, c_outside)
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return Scan.apply(*inputs, diagonal, save)


class Scan(torch.autograd.Function):
    """gates (D, B, H, W, 4h), weight (D, 4h, sides · h), two (D, h) → (D, B, H, W, h); see `triton_kernels`."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, h_outside: Tensor, c_outside: Tensor, diagonal: bool, save: bool
    ) -> Tensor:
        from lightning_modules.pixelrnn import triton_kernels

        directions, maps, height, width, hidden = *gates.shape[:4], h_outside.shape[1]
        sides, lines = weight.shape[2] // hidden, height if diagonal else width
        low, c_edge = weight.to(gates.dtype).contiguous(), c_outside.float().contiguous()
        left, right = (1, 0) if diagonal else (sides // 2, sides // 2)
        framed = frame(gates, h_outside, left, right)
        rows = (height, width) if save else (2, lines)
        cell = gates.new_empty(directions, maps, *rows, hidden, dtype=torch.float32)
        saved = torch.empty_like(gates, memory_format=torch.contiguous_format) if save else framed
        with torch.cuda.device_of(gates):
            triton_kernels.forward[(directions * maps,)](
                gates.contiguous(),
                low,
                c_edge,
                framed,
                cell,
                saved,
                maps,
                DIAGONAL=diagonal,
                SIDES=sides,
                HEIGHT=height,
                WIDTH=width,
                PADDED=framed.shape[3],
                HIDDEN=hidden,
                SAVE=save,
                **tiles(True, longest_step(height, width, diagonal), hidden, sides, gates.dtype, factors(gates)),
            )
        if save:
            ctx.save_for_backward(framed, saved, cell, low, c_edge)
            ctx.diagonal, ctx.dtypes = diagonal, (weight.dtype, h_outside.dtype, c_outside.dtype)
        return framed[:, :, 1:, left : left + width]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> tuple[Tensor | None, ...]:
        from lightning_modules.pixelrnn import triton_kernels

        framed, saved, cell, weight, c_edge = ctx.saved_tensors
        directions, maps, height, width, hidden = cell.shape
        sides, lines = weight.shape[2] // hidden, height if ctx.diagonal else width
        grad_gates = torch.empty_like(saved)
        carry = cell.new_empty(directions, maps, 2, lines, hidden)
        grad_c = cell.new_empty(directions, maps, lines, hidden)
        with torch.cuda.device_of(saved):
            triton_kernels.backward[(directions * maps,)](
                grad_hidden.to(saved.dtype).contiguous(),
                saved,
                cell,
                weight,
                c_edge,
                grad_gates,
                carry,
                grad_c,
                maps,
                DIAGONAL=ctx.diagonal,
                SIDES=sides,
                HEIGHT=height,
                WIDTH=width,
                HIDDEN=hidden,
                **tiles(False, longest_step(height, width, ctx.diagonal), hidden, sides, saved.dtype, factors(saved)),
            )
        _, for_weight, for_h, for_c, *_ = ctx.needs_input_grad
        weight_type, h_type, c_type = ctx.dtypes
        return (
            grad_gates,
            grad_of_weight(grad_gates, framed, sides, ctx.diagonal).to(weight_type) if for_weight else None,
            grad_of_h_outside(grad_gates, weight, ctx.diagonal).to(h_type) if for_h else None,
            grad_c.sum((1, 2)).to(c_type) if for_c else None,
            None,
            None,
        )


def frame(gates: Tensor, h_outside: Tensor, left: int, right: int) -> Tensor:
    """(D, B, 1 + H, left + W + right, h), the part around the image filled with the state outside, the rest not yet."""
    directions, maps, height, width, _ = gates.shape
    framed = gates.new_empty(directions, maps, 1 + height, left + width + right, h_outside.shape[1])
    edge = h_outside.to(gates.dtype)[:, None, None, None]
    framed[:, :, :1] = edge
    framed[:, :, :, :left] = edge
    framed[:, :, :, left + width :] = edge
    return framed


def grad_of_weight(grad_gates: Tensor, framed: Tensor, sides: int, diagonal: bool) -> Tensor:
    """(D, 4h, sides · h), in float32 where the device can: the product of all cells with their neighbours."""
    width = grad_gates.shape[3]
    above = framed[:, :, :-1]
    if diagonal:
        near = [above[:, :, :, 1:], framed[:, :, 1:, :-1]]
    else:
        near = [above[:, :, :, side : side + width] for side in range(sides)]
    cells, neighbours = grad_gates.flatten(1, 3).mT, torch.cat(near, dim=4).flatten(1, 3)
    if cells.is_cuda and cells.dtype != torch.float32:
        return torch.bmm(cells, neighbours, out_dtype=torch.float32)
    return torch.bmm(cells, neighbours)


def grad_of_h_outside(grad_gates: Tensor, weight: Tensor, diagonal: bool) -> Tensor:
    """(D, h), float32: over the cells that had the state outside the image for a neighbour, side by side."""
    directions, _, _, width, features = grad_gates.shape
    sides = weight.shape[2] // (features // 4)
    first_row = grad_gates[:, :, 0].sum((1, 2), dtype=torch.float32)
    if diagonal:
        met = [first_row, grad_gates[:, :, :, 0].sum((1, 2), dtype=torch.float32)]
    else:
        below = grad_gates[:, :, 1:].sum((1, 2), dtype=torch.float32)  # (D, W, 4h)
        columns = [slice(0, sides // 2 - side) for side in range(sides // 2)]
        columns += [slice(max(0, width - ahead), width) for ahead in range(sides // 2 + 1)]
        met = [first_row + below[:, beyond].sum(1) for beyond in columns]
    by_side = weight.float().view(directions, features, sides, features // 4)
    return (torch.stack(met, dim=2)[..., None] * by_side).sum((1, 2))


def longest_step(height: int, width: int, diagonal: bool) -> int:
    """In cells."""
    return min(height, width) if diagonal else width


def factors(gates: Tensor) -> str:
    """What a product's factors are taken as: `tf32` where float32 may be rounded for the tensor cores, else `ieee`."""
    allowed = torch.get_float32_matmul_precision() != "highest"
    return "tf32" if gates.dtype == torch.float32 and allowed else "ieee"


def tiles(
    forward: bool, lines: int, hidden: int, sides: int, dtype: torch.dtype, precision: str = "ieee"
) -> dict[str, Any]:
    """How a kernel cuts its work up: so that (almost) no register spills and 99 KB of shared memory are enough.

    A step's products are those of (lines, factors) with (factors, hidden), taken in tiles of BLOCK_M × BLOCK_K with
    BLOCK_K × BLOCK_N; where all weights fit in 64 KB (in 16 bits: a diagonal scan's up to h = 64), they stay on chip.
    In float32, which the tensor cores multiply as TF32 alone, they are kept only if few: products without them need the
    registers.
    """
    products, inner = (4, sides * hidden) if forward else (sides, 4 * hidden)
    m, n, k = min(64, power_of_two(lines)), power_of_two(hidden), power_of_two(inner)
    narrow = dtype != torch.float32
    resident = products * n * k * dtype.itemsize <= (65536 if narrow else 16384)
    if resident:
        m = min(m, 32)
    elif narrow:
        n = min(n, 64) if m > 32 or n > 128 else n
        k = 32 if forward and max(m, n // 2) > 32 else 64  # the forward kernel's are four tiles at a time
    else:
        n, k = min(n, 64 if precision == "tf32" and m <= 32 else 32), 32
    return {
        "RESIDENT": resident,
        "BLOCK_M": m,
        "BLOCK_N": n,
        "BLOCK_K": k,
        "num_warps": 4 if hidden <= 32 and m <= 32 else 8,
        "num_stages": 3 if narrow else 2,
        "PRECISION": precision,
    }


def power_of_two(size: int) -> int:
    """The smallest that is not less, at least the 16 that `tl.dot` needs."""
    return max(16, 1 << (size - 1).bit_length())
