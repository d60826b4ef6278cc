"""The recurrent layers against plain loops over cells, written from the paper's equations alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.pixelrnn import compiler
from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer, DiagonalScan
from lightning_modules.pixelrnn.recurrence import choose_engine
from lightning_modules.pixelrnn.row_lstm import RowLayer

SIZES = [(1, 1), (1, 5), (5, 1), (3, 6), (6, 3), (4, 4)]
HIDDEN = 4


def step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3 for one cell: gates (B, 4h) in the order o, f, i, g."""
    h = cell.shape[1]
    o, f, i = (torch.sigmoid(gates[:, k * h : (k + 1) * h]) for k in range(3))
    g = torch.tanh(gates[:, 3 * h :])
    cell = f * cell + i * g
    return o * torch.tanh(cell), cell


def scan_by_cells(scan: DiagonalScan, x: Tensor, side: int) -> dict[tuple[int, int], Tensor]:
    """Hidden state of every cell; `side` is −1 when the horizontal neighbour is the left one, +1 the right one."""
    batch, _, height, width = x.shape
    weight = (scan.input_to_state.weight * scan.input_to_state.mask)[:, :, 0, 0]
    from_above, from_side = scan.state_to_state.weight.chunk(2, dim=1)
    h_out, c_out = (state.expand(batch, -1) for state in scan.outside.state)
    h, c = {}, {}
    for row in range(height):
        for column in range(width) if side < 0 else reversed(range(width)):
            gates = x[:, :, row, column] @ weight.T + scan.input_to_state.bias
            gates = gates + h.get((row - 1, column), h_out) @ from_above.T
            gates = gates + h.get((row, column + side), h_out) @ from_side.T
            h[row, column], c[row, column] = step(gates, c.get((row, column + side), c_out))
    return h


def diagonal_by_cells(layer: DiagonalLayer, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    left, right = scan_by_cells(layer.left, x, -1), scan_by_cells(layer.right, x, +1)
    zero = x.new_zeros(batch, HIDDEN)
    cells = [left[r, c] + right.get((r - 1, c), zero) for r in range(height) for c in range(width)]
    return layer.up(torch.stack(cells, dim=2).view(batch, HIDDEN, height, width))


def row_by_cells(layer: RowLayer, x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    conv, reach = layer.input_to_state, layer.state_to_state.kernel_size[0] // 2
    weight = (conv.weight * conv.mask)[:, :, 0]
    h_out, c_out = (state.expand(batch, -1) for state in layer.outside.state)
    h, c = {}, {}
    for row in range(height):
        for column in range(width):
            gates = conv.bias.expand(batch, -1)
            for k in range(-reach, reach + 1):
                if 0 <= column + k < width:
                    gates = gates + x[:, :, row, column + k] @ weight[:, :, reach + k].T
                gates = gates + h.get((row - 1, column + k), h_out) @ layer.state_to_state.weight[:, :, reach + k].T
            h[row, column], c[row, column] = step(gates, c.get((row - 1, column), c_out))
    cells = [h[r, col] for r in range(height) for col in range(width)]
    return layer.up(torch.stack(cells, dim=2).view(batch, HIDDEN, height, width))


def assert_same_values_and_gradients(layer: torch.nn.Module, by_cells, size: tuple[int, int]) -> None:
    layer = layer.double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 2 * HIDDEN, *size, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    found, wanted = layer(x), by_cells(layer, x)
    towards = torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, towards),
        torch.autograd.grad(wanted, inputs, towards, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_diagonal_layer_is_the_papers(size, channels, engine):
    assert_same_values_and_gradients(DiagonalLayer(HIDDEN, channels, "learned", engine), diagonal_by_cells, size)


@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_row_layer_is_the_papers(size, channels, kernel, engine):
    assert_same_values_and_gradients(RowLayer(HIDDEN, channels, kernel, "learned", engine), row_by_cells, size)


LAYERS = [
    pytest.param(lambda: DiagonalLayer(12, 3, "learned"), id="diagonal"),
    pytest.param(lambda: RowLayer(12, 3, 3, "learned"), id="row"),
]


def value_and_gradients(layer: torch.nn.Module, engine: str, x: Tensor, towards: Tensor) -> list[Tensor]:
    layer.engine = engine
    inputs = [x, *layer.parameters()]
    value = layer(x)
    return [value, *torch.autograd.grad(value, inputs, towards.to(value.dtype))]


@pytest.mark.parametrize("engine", ["fused", "compiled"])
@pytest.mark.parametrize("make", LAYERS)
def test_in_bfloat16_an_engine_is_near_the_reference_in_float32(make, engine):
    """As near as the reference's own bfloat16, with half as much to spare: each product rounds to 8 bits."""
    layer, x = make(), torch.randn(3, 24, 7, 9, requires_grad=True)
    towards = torch.randn_like(x)
    wanted = value_and_gradients(layer, "reference", x, towards)
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = (value_and_gradients(layer, engine, x, towards) for engine in (engine, "reference"))
    assert found[0].dtype == torch.bfloat16
    for mine, theirs, exact in zip(found, usual, wanted, strict=True):
        scale = exact.abs().max()
        assert (mine - exact).abs().max() <= 1.5 * (theirs - exact).abs().max() + 2e-3 * scale
        assert (mine - exact).abs().max() <= 0.03 * scale


@pytest.mark.parametrize("engine", ["fused", "compiled"])
@pytest.mark.parametrize("make", LAYERS)
def test_a_second_backward_pass_gives_the_same(make, engine):
    layer, x = make(), torch.randn(2, 24, 4, 5, requires_grad=True)
    layer.engine = engine
    total = layer(x).square().sum()
    first, again = (torch.autograd.grad(total, [x, *layer.parameters()], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_engine_is_chosen_and_said(caplog, monkeypatch):
    choose_engine.cache_clear()
    monkeypatch.setattr(compiler, "unavailable", lambda source: "no g++ here")
    with caplog.at_level("INFO"):
        engines = ("auto", "fused", "reference", "triton")
        chosen = [choose_engine(engine, torch.device("cpu"), 8, torch.float32) for engine in engines]
        assert chosen == ["fused", "fused", "reference", "fused"]
        assert "fused engine (not the compiled one: no g++ here)" in caplog.text
        assert "fused engine (not the triton one: " in caplog.text
        monkeypatch.setattr(compiler, "unavailable", lambda source: None)
        choose_engine.cache_clear()
        chosen = [choose_engine("auto", torch.device("cpu"), 8, dtype) for dtype in (torch.float32, torch.float64)]
    choose_engine.cache_clear()
    assert chosen == ["compiled", "fused"]


@pytest.mark.parametrize("layer", [DiagonalLayer(HIDDEN, 1, "zero"), RowLayer(HIDDEN, 1, 3, "zero")])
def test_a_zero_initial_state_stays_zero(layer):
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    assert trained and not any("outside" in name for name in trained)
    assert all(not parameter.any() for name, parameter in layer.named_parameters() if "outside" in name)


def test_only_live_cells_are_computed():
    """A 2 × 40 map has 80 cells; its skewed map would have 82 columns of two rows."""
    layer, rows = DiagonalScan(HIDDEN, 1, "learned"), []
    layer.state_to_state.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    layer(torch.randn(1, 2 * HIDDEN, 2, 40))
    assert sum(rows) == 80 and len(rows) == 41
