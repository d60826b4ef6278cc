"""Which sub-pixels each output depends on, by the exact Jacobian, against the architecture's own context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM, PixelCNN, PixelNet, RowLSTM, diag_bilstm
from lightning_modules.pixelrnn.masked import MaskedConv2d
from tests.pixelrnn.networks import NETWORKS, make

SIZES = [(5, 7), (8, 8)]


def dependence(network: torch.nn.Module, spec: ImageSpec, images: int = 20) -> Tensor:
    """(N, N) booleans over sub-pixels in raster order, channels innermost: does output i depend on input j?

    Every sub-pixel's logits are projected on a random vector, and its gradient with respect to the image taken, by
    one copy of the image for each; over a few images, since a ReLU may hide a dependence at one of them.
    """
    total = spec.dims
    seen = torch.zeros(total, total, dtype=torch.bool)
    for _ in range(images):
        image = torch.rand(spec.shape, dtype=torch.float64) * (spec.levels - 1)
        copies = image.expand(total, *spec.shape).clone().requires_grad_()
        logits = network(copies).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (N, N in raster order, levels)
        projected = logits @ torch.randn(spec.levels, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(projected.diagonal().sum(), copies)
        seen |= gradient.permute(0, 2, 3, 1).flatten(1) != 0
    return seen


def expected(kind: type, spec: ImageSpec, layers: int) -> Tensor:
    """The context that the paper's definitions give, by propagating sets of cells through the layers."""
    channels, height, width = spec.shape
    index = torch.arange(spec.dims)
    row, column, colour = index // (width * channels), index // channels % width, index % channels
    down, right = row[:, None] - row[None, :], column[:, None] - column[None, :]  # of the output from the input
    pixel = (down == 0) & (right == 0)
    earlier = (down > 0) | ((down == 0) & (right > 0))
    mask_a = pixel & (colour[None, :] < colour[:, None])
    mask_b = pixel & (colour[None, :] <= colour[:, None])

    def window(size: int) -> Tensor:
        return earlier & (down <= size // 2) & (right.abs() <= size // 2)

    def after(later: Tensor, sooner: Tensor) -> Tensor:
        return (later.double() @ sooner.double()) > 0

    if kind is DiagonalBiLSTM:
        layer = mask_b | (earlier & (right >= 0)) | ((down >= 1) & (right <= 0))
    elif kind is RowLSTM:
        above = (down == 1) & (right.abs() <= 1)
        state = mask_b | ((down == 0) & (right == 1))
        layer = state.clone()
        for _ in range(height):
            layer = layer | after(above, layer)
    else:
        layer = mask_b | window(3)
    context = mask_a | window(7)
    for _ in range(layers):
        context = context | after(layer, context)
    return after(mask_b, context)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_each_sub_pixel_sees_exactly_its_context(network, channels, size, layers):
    spec = ImageSpec(channels, *size, levels=4)
    seen = dependence(make(network, spec, layers=layers), spec)
    assert not torch.triu(seen).any(), "an output depends on itself or on something later"
    assert torch.equal(seen, expected(network, spec, layers))


@pytest.mark.parametrize("network", NETWORKS)
def test_skips_and_no_residuals_keep_the_order(network):
    spec = ImageSpec(3, 5, 7, levels=3)
    seen = dependence(make(network, spec, layers=2, hidden=7, skip=True, residual=False), spec)
    assert not torch.triu(seen).any()


def test_the_diagonal_misses_only_the_last_pixel_of_the_previous_row():
    spec = ImageSpec(1, 8, 8, levels=4)
    seen = dependence(make(DiagonalBiLSTM, spec, layers=2), spec)
    missed = torch.tril(torch.ones_like(seen), -1) & ~seen
    cells = [divmod(int(i), 8) + divmod(int(j), 8) for i, j in missed.nonzero()]
    assert cells, "the mask-A first layer hides one pixel"
    assert all(row_seen == row - 1 and column_seen == 7 for row, _, row_seen, column_seen in cells)


def leaks(network: torch.nn.Module, spec: ImageSpec) -> bool:
    return bool(torch.triu(dependence(network, spec)).any())


def test_planted_leak_no_row_shift(monkeypatch):
    monkeypatch.setattr(diag_bilstm, "shift_down", lambda x: x)
    spec = ImageSpec(1, 5, 7, levels=4)
    assert leaks(make(DiagonalBiLSTM, spec, engine="reference"), spec)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_planted_leak_mask_b_in_the_first_layer(network, channels):
    spec = ImageSpec(channels, 5, 7, levels=4)
    made = make(network, spec)
    made.first = MaskedConv2d(channels, 16, 7, "B", channels).double()
    assert leaks(made, spec)


@pytest.mark.parametrize("network", [RowLSTM, DiagonalBiLSTM])
def test_planted_leak_colour_thirds_of_the_whole_gate_map(network):
    spec = ImageSpec(3, 5, 7, levels=4)
    made = make(network, spec)
    layer = made.layers[0]
    for part in [layer] if network is RowLSTM else [layer.left, layer.right]:
        kernel = part.input_to_state.kernel_size
        part.input_to_state = MaskedConv2d(16, 32, kernel, "B", channels=3, gates=1).double()
    assert leaks(made, spec)


def test_pixelnet_is_causal_in_evaluation_only():
    spec = ImageSpec(1, 5, 7, levels=4)
    made = make(PixelNet, spec)
    assert not leaks(made, spec)
    assert leaks(made.train(), spec), "batch statistics mix positions while training: the docstring says so"


def test_an_unmasked_convolution_is_found():
    spec = ImageSpec(1, 5, 7, levels=4)
    made = make(PixelCNN, spec)
    made.layers[0][3].mask.fill_(1)
    assert leaks(made, spec)
