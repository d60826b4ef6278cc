"""The Triton kernels on the CPU against the references; a script, because TRITON_INTERPRET is read at import."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from lightning_modules.pixelrnn import triton_scan
from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer, diagonal_scan, shift_down
from lightning_modules.pixelrnn.recurrence import choose_engine
from lightning_modules.pixelrnn.row_lstm import RowLayer, row_scan

SIZES = [(1, 5, 1, 1), (2, 3, 3, 4), (1, 16, 4, 1), (2, 20, 3, 6), (1, 33, 6, 5), (1, 4, 2, 35)]  # (B, h, H, W)
QUICK = SIZES[:2]
SLOW = pytest.mark.slow


class Convolution:
    """`row_scan` asks its state-to-state convolution for the kernel's size, and its weights are an input here."""

    def __init__(self, weight: Tensor):
        self.weight, self.kernel_size = weight, weight.shape[2:]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.conv1d(x, self.weight)


def diagonal_reference(gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Tensor:
    left, right = (gates + bias).permute(3, 0, 4, 1, 2)
    maps = [
        diagonal_scan(z, lambda x, w=w: x @ w.T, *states)
        for z, w, states in zip([left, right.flip(3)], weight, outside, strict=True)
    ]
    return (maps[0] + shift_down(maps[1].flip(3))).permute(0, 2, 3, 1)


def row_reference(gates: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Tensor:
    return row_scan((gates + bias).permute(0, 3, 1, 2), Convolution(weight), *outside).permute(0, 2, 3, 1)


def diagonal_inputs(batch: int, hidden: int, height: int, width: int) -> list[Tensor]:
    return [
        torch.randn(batch, height, width, 2, 4 * hidden),
        torch.randn(2, 4 * hidden, 2 * hidden) / hidden**0.5,
        torch.randn(2, 4 * hidden),
        torch.randn(2, 2, hidden),
    ]


def row_inputs(kernel: int, batch: int, hidden: int, height: int, width: int) -> list[Tensor]:
    return [
        torch.randn(batch, height, width, 4 * hidden),
        torch.randn(4 * hidden, hidden, kernel) / hidden**0.5,
        torch.randn(4 * hidden),
        torch.randn(2, hidden),
    ]


def compare(scan, reference, inputs: list[Tensor], tolerance: float) -> None:
    """Values and the gradients of every input, against the reference in float64; relative to the largest of each."""
    inputs = [tensor.requires_grad_() for tensor in inputs]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, wanted = scan(*inputs), reference(*exact)
    # Not contiguous, as what comes from a permuted map is not.
    towards = torch.randn_like(found.transpose(-1, -2).contiguous()).transpose(-1, -2)
    mine = torch.autograd.grad(found, inputs, towards)
    theirs = torch.autograd.grad(wanted, exact, towards.double())
    with torch.no_grad():
        unsaved = scan(*inputs)
    names = ["values", "values without a backward pass", "gates", "weight", "bias", "states outside"]
    pairs = zip(names, [found, unsaved, *mine], [wanted, wanted, *theirs], strict=True)
    for name, one, other in pairs:
        assert one.shape == other.shape
        worst = ((one.double() - other).abs().max() / other.abs().max()).item()
        assert worst < tolerance, f"{name}: off by {worst:.1e} of the largest"


def twice_the_same(scan, inputs: list[Tensor]) -> None:
    inputs = [tensor.requires_grad_() for tensor in inputs]
    first, second = (torch.autograd.grad(scan(*inputs).sum(), inputs) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [pytest.param(size, marks=() if size in QUICK else SLOW) for size in SIZES])
def test_diagonal(size):
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal_inputs(*size), 5e-6)


@pytest.mark.parametrize(
    ("kernel", "size"),
    [pytest.param(k, size, marks=() if size in QUICK and k == 3 else SLOW) for k in (1, 3, 5) for size in SIZES],
)
def test_row(kernel, size):
    compare(triton_scan.row_scans, row_reference, row_inputs(kernel, *size), 5e-6)


@pytest.mark.parametrize("size", [(2, 6, 2, 3), pytest.param((1, 33, 3, 2), marks=SLOW)])
def test_in_16_bits(size, monkeypatch):
    """The interpreter keeps bfloat16 as whole numbers, and would multiply those."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def exact(self, a, b, d, *how):
        return dot(self, *(self.cast_impl(factor, tl.float32) for factor in (a, b)), d, *how)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", exact)
    diagonal, row = ([x.bfloat16() for x in inputs] for inputs in (diagonal_inputs(*size), row_inputs(3, *size)))
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal, 3e-2)
    compare(triton_scan.row_scans, row_reference, row, 3e-2)


def cut_as_for_16_bits(monkeypatch) -> None:
    tiles = triton_scan.tiles
    monkeypatch.setattr(triton_scan, "tiles", lambda *sizes: tiles(*sizes[:4], torch.bfloat16))


@pytest.mark.parametrize(
    "size", [(1, 33, 2, 3), pytest.param((1, 70, 2, 3), marks=SLOW), pytest.param((1, 130, 2, 2), marks=SLOW)]
)
def test_diagonal_in_the_tiles_of_16_bits(size, monkeypatch):
    cut_as_for_16_bits(monkeypatch)
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal_inputs(*size), 5e-6)


@pytest.mark.parametrize(
    "size", [(1, 20, 3, 4), pytest.param((1, 33, 2, 65), marks=SLOW), pytest.param((1, 70, 2, 35), marks=SLOW)]
)
def test_row_in_the_tiles_of_16_bits(size, monkeypatch):
    cut_as_for_16_bits(monkeypatch)
    compare(triton_scan.row_scans, row_reference, row_inputs(3, *size), 5e-6)


@pytest.mark.parametrize("size", [(1, 18, 2, 3), pytest.param((1, 70, 3, 2), marks=SLOW)])
def test_one_sides_weights_kept(size, monkeypatch):
    """As for h = 128 on an H100."""
    tiles = triton_scan.tiles

    def kept(*sizes):
        forward, _, hidden = sizes[:3]
        block = triton_scan.power_of_two(hidden if forward else 4 * hidden)
        whole = triton_scan.power_of_two(hidden)
        return tiles(*sizes) | {"KEPT": 1, "BLOCK_KEPT": block, "BLOCK_N": whole, "BLOCK_K": 16}

    monkeypatch.setattr(triton_scan, "tiles", kept)
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal_inputs(*size), 5e-6)
    compare(triton_scan.row_scans, row_reference, row_inputs(3, *size), 5e-6)


@pytest.mark.parametrize("size", [(1, 6, 2, 3), pytest.param((1, 70, 2, 3), marks=SLOW)])
def test_in_the_tiles_of_tf32(size, monkeypatch):
    """The interpreter rounds nothing: what is tested is how the work is cut."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal_inputs(*size), 5e-6)
    compare(triton_scan.row_scans, row_reference, row_inputs(3, *size), 5e-6)


@SLOW
def test_diagonals_longer_than_a_tile(monkeypatch):
    tiles = triton_scan.tiles
    monkeypatch.setattr(triton_scan, "tiles", lambda *sizes: tiles(*sizes) | {"BLOCK_M": 16})
    compare(triton_scan.diagonal_scans, diagonal_reference, diagonal_inputs(1, 3, 17, 18), 5e-6)


LAYERS = [lambda: DiagonalLayer(6, 3, "learned", "triton"), lambda: RowLayer(6, 3, 3, "learned", "triton")]


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_with_this_engine_is_the_layer(make):
    a_layer_is_the_layer(make(), torch.randn(2, 12, 3, 4), 1e-4)


def a_layer_is_the_layer(layer: torch.nn.Module, x: Tensor, tolerance: float) -> None:
    """Values and all gradients, on x's device, against the reference engine."""
    for parameter in layer.to(x.device).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert choose_engine("triton", x.device, 6, torch.float32) == "triton"
    inputs, values = [x.requires_grad_(), *layer.parameters()], []
    for engine in ("triton", "reference"):
        layer.engine = engine
        value = layer(x)
        values.append([value, *torch.autograd.grad(value.square().sum(), inputs)])
    for mine, theirs in zip(*values, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def test_only_what_is_asked_for():
    """A frozen state outside has no gradient, and weights of another type get theirs in that type."""
    gates, weight, bias, outside = diagonal_inputs(1, 3, 2, 2)
    weight = weight.double().requires_grad_()
    triton_scan.diagonal_scans(gates, weight, bias, outside).sum().backward()
    assert weight.grad.dtype == torch.float64 and weight.grad.any()


def test_the_trial_succeeds():
    with torch.inference_mode():
        assert triton_scan.trial(torch.device("cpu")) is None


def test_no_atomics():
    twice_the_same(triton_scan.diagonal_scans, diagonal_inputs(1, 3, 2, 2))


@pytest.mark.parametrize("broken", range(4))
def test_shapes_that_do_not_fit(broken):
    inputs = diagonal_inputs(1, 3, 2, 2)
    inputs[broken] = inputs[broken][..., :-1]
    with pytest.raises(ValueError, match="fit"):
        triton_scan.diagonal_scans(*inputs)


def test_even_kernels_and_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        triton_scan.row_scans(*row_inputs(2, 1, 3, 2, 2))
    with pytest.raises(ValueError, match="float64"):
        triton_scan.diagonal_scans(*(tensor.double() for tensor in diagonal_inputs(1, 3, 2, 2)))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-x", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
