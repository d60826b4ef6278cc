"""One mask for all time steps: masked columns of torch's weights, against the recurrence written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.tied_dropout import draw_masks, looped_recurrence, masked_recurrence

RECURRENCES = pytest.mark.parametrize("kind_of", [nn.LSTM, nn.GRU])


def made(kind_of, layers: int = 2, bidirectional: bool = True, **options) -> nn.Module:
    return kind_of(3, 5, layers, batch_first=True, bidirectional=bidirectional, **options).double()


def gradients(output: torch.Tensor, layer: nn.Module) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return torch.autograd.grad((output * weights).sum(), list(layer.parameters()))


@RECURRENCES
@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("both", [True, False])
def test_masked_columns_are_the_recurrence_with_masked_states(kind_of, kind, both):
    layer, x = made(kind_of, bidirectional=both), torch.randn(4, 7, 3, dtype=torch.float64)
    masks = draw_masks(layer, 0.4, torch.Generator().manual_seed(1), kind, input_p=0.3)
    assert masks.keys() == {name for name, _ in layer.named_parameters() if name.startswith("weight")}
    assert all((mask == 0).any() or mask.numel() < 9 for mask in masks.values())
    state = tuple(torch.randn(4 if both else 2, 4, 5, dtype=torch.float64) for _ in range(1 + (kind_of is nn.LSTM)))
    for before in (None, state):
        fast, last = masked_recurrence(layer, x, masks, before)
        slow, slow_last = looped_recurrence(layer, x, masks, before)
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
        for one, other in zip(last, slow_last, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        for one, other in zip(gradients(fast, layer), gradients(slow, layer), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@RECURRENCES
def test_masks_of_each_sequence_are_those_of_each_alone(kind_of):
    layer, x = made(kind_of), torch.randn(3, 6, 3, dtype=torch.float64)
    masks = draw_masks(layer, 0.4, torch.Generator().manual_seed(2), sequences=3)
    together = looped_recurrence(layer, x, masks)[0]
    for row in range(3):
        own = {name: mask[row : row + 1] for name, mask in masks.items()}
        torch.testing.assert_close(masked_recurrence(layer, x[row : row + 1], own)[0][0], together[row])
    with pytest.raises(ValueError, match="need the loop"):
        masked_recurrence(layer, x, masks)


@RECURRENCES
def test_without_masks_it_is_torchs_own(kind_of):
    layer, x = made(kind_of), torch.randn(4, 7, 3, dtype=torch.float64)
    masks = draw_masks(layer, 0.0)
    assert not masks
    found, last = masked_recurrence(layer, x, masks)
    expected, expected_last = layer(x)
    assert torch.equal(found, expected)
    assert torch.equal(last[0], expected_last[0] if kind_of is nn.LSTM else expected_last)
    bare = made(kind_of, bias=False)
    assert torch.equal(masked_recurrence(bare, x)[0], bare(x)[0])
    torch.testing.assert_close(looped_recurrence(bare, x)[0], bare(x)[0])


def test_masks_are_a_function_of_the_generator_and_their_zeros_binomial():
    layer = nn.GRU(3, 50, 2, batch_first=True, bidirectional=True)
    first, second = (draw_masks(layer, 0.2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first.keys() == {
        name for name, _ in layer.named_parameters() if "weight_hh" in name or "weight_ih_l1" in name
    }
    generator = torch.Generator().manual_seed(4)
    many = torch.cat([draw_masks(layer, 0.2, generator)["weight_hh_l0"] for _ in range(400)]).flatten(1)
    assert set(many.unique().tolist()) == {0.0, 1.25}
    dropped = (many == 0).sum(1).double()  # of 50 columns
    assert abs(dropped.mean() - 10) < 4 * (50 * 0.2 * 0.8 / 400) ** 0.5
    assert dropped.var().item() == pytest.approx(50 * 0.2 * 0.8, rel=0.3)
