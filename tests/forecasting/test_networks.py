"""The networks: causal, linear where they should be, indifferent to what is not observed; masks and their mean."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, SeriesSpec, spec_from_dict, spec_to_dict
from lightning_modules.forecasting import BiGRU, BiLSTM, DLinear, NLinear
from lightning_modules.forecasting.network import filled_forward, level_of
from lightning_modules.forecasting.recurrent import AttentionPooling

SPEC = SeriesSpec(("a", "b"), 30, 4, (1, 0), 6, (1.0, -2.0), (2.0, 0.5), tuple(0.1 * n for n in range(8)))
ONE = SeriesSpec(("y",), 168, 24, (0,), 24, (0.0,), (1.0,), (0.0,) * 24)
SMALL = {"hidden": 5, "layers": 2, "attention": 3}
NETWORKS = {
    "bi_lstm": lambda **how: BiLSTM(SPEC, **SMALL, **how),
    "bi_gru": lambda **how: BiGRU(SPEC, **SMALL, **how),
    "dlinear": lambda: DLinear(SPEC),
    "nlinear": lambda: NLinear(SPEC),
}
EACH = pytest.mark.parametrize("name", NETWORKS)


def stirred(network: torch.nn.Module) -> torch.nn.Module:
    """With no weight at zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def windows(count: int = 3) -> torch.Tensor:
    return torch.randn(count, SPEC.window, 2, generator=torch.Generator().manual_seed(6)) * 2


def test_a_spec_goes_through_a_checkpoint_and_its_scaling_is_not_compared():
    record = spec_to_dict(SPEC)
    assert spec_from_dict({**record, "channels": list(SPEC.channels)}) == SPEC and hash(SPEC)
    assert spec_from_dict({**record, "mean": [5.0, 5.0]}) == SPEC
    assert spec_from_dict({**record, "horizon": 5}) != SPEC
    assert str(SPEC) == "a series of 2 channels (a, b), 30 steps seen, 4 of b, a forecast"


@EACH
def test_forecasts_are_of_the_targets_and_begin_with_the_data_s_variance(name):
    found = NETWORKS[name]()(windows())
    assert found.mean.shape == found.log_variance.shape == (3, 4, 2)
    assert found.mean.dtype == torch.float32 and found.mean.isfinite().all()
    if name == "nlinear":
        torch.testing.assert_close(found.log_variance[0], torch.tensor(SPEC.log_variance).view(4, 2))


@EACH
def test_what_is_not_observed_may_be_anything(name):
    network, x = stirred(NETWORKS[name]()), windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(7)) > 0.3
    whole = network(x, torch.ones_like(observed))
    torch.testing.assert_close(network(x), whole, rtol=0, atol=0)
    found = network(x, observed)
    for other in (torch.nan, 1e6):
        again = network(x.masked_fill(~observed, other), observed)
        torch.testing.assert_close(again, found, rtol=0, atol=0)
    torch.testing.assert_close(network(x.masked_fill(~observed, torch.nan)), found, rtol=0, atol=0)
    nothing = network(x, torch.zeros_like(observed))
    assert nothing.mean.isfinite().all() and nothing.log_variance.isfinite().all()
    torch.testing.assert_close(nothing.mean[0], nothing.mean[1])


@pytest.mark.parametrize("level", ["none", "variance", "both"])
@pytest.mark.parametrize("pooling", ["attention", "last", "mean"])
def test_every_pooling_and_level_forecasts_and_learns(level, pooling):
    network = NETWORKS["bi_lstm"](level=level, pooling=pooling, center="median5")
    found = network(windows(), masks=network.draw())
    (found.mean.sum() + found.log_variance.sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_levels_and_forward_fill():
    x = torch.tensor([[1.0, 9.0, 2.0, 8.0, 3.0, 100.0]])[..., None]
    seen = torch.ones_like(x, dtype=torch.bool)
    assert level_of(x, seen, "last").item() == 100 and level_of(x, seen, "median5").item() == 8
    seen[:, -1] = False
    assert level_of(x, seen, "last").item() == 3
    seen[:, :1] = seen[:, 3:4] = False
    assert filled_forward(x, seen).flatten().tolist() == [9, 9, 2, 2, 3, 3]
    assert level_of(x, seen & False, "median5").item() == 0 == filled_forward(x, seen & False).abs().sum()


def test_dlinear_is_linear_and_its_matrix_reproduces_it():
    network, zero = stirred(DLinear(SPEC)), torch.zeros(1, SPEC.window, 2)
    x, y = windows(2).unsqueeze(1).unbind()
    at = lambda given: network.double()(given.double()).mean  # noqa: E731
    scaled = lambda given: given * torch.tensor(SPEC.scale) + torch.tensor(SPEC.mean)  # noqa: E731
    f = lambda given: at(scaled(given))  # noqa: E731
    torch.testing.assert_close(f(x + y) - f(x) - f(y) + f(zero), torch.zeros_like(f(x)), rtol=0, atol=1e-5)
    impulses = torch.zeros(SPEC.window, SPEC.window, 2)
    impulses[torch.arange(SPEC.window), torch.arange(SPEC.window), 1] = 1
    matrix = (f(impulses) - f(zero))[..., 0]  # (L, H) of target b
    torch.testing.assert_close(x[..., 1].to(matrix.dtype) @ matrix + f(zero)[..., 0], f(x)[..., 0], rtol=0, atol=1e-4)


def test_nlinear_moves_with_its_window():
    network, x = stirred(NLinear(SPEC)), windows()
    moved = network(x + 3 * torch.tensor(SPEC.scale)).mean
    torch.testing.assert_close(moved, network(x).mean + 3, rtol=0, atol=1e-4)


def test_attention_sums_to_one_over_what_is_seen():
    pooling, states = AttentionPooling(6, 4), torch.randn(3, 9, 6)
    seen = torch.rand(3, 9) > 0.4
    seen[2] = False
    found = pooling(states, seen)
    torch.testing.assert_close(found.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    assert (found[~seen] == 0).all() and (found[seen] > 0).all()


def test_sizes_are_the_chapters():
    """Without a channel for what is observed: 150,128 and 116,720; it has 8 · 64 and 6 · 64 weights."""
    for kind, expected, gates in ((BiLSTM, 150_128, 8), (BiGRU, 116_720, 6)):
        counts = [sum(p.numel() for p in kind(ONE, linear_skip=skip).parameters()) for skip in (False, True)]
        assert counts == [expected + gates * 64, expected + gates * 64 + 169 * 24]
    at = SeriesSpec(("y",), 336, 24, (0,), 24, (0.0,), (1.0,), (0.0,) * 24)
    assert sum(p.numel() for name, p in DLinear(at).named_parameters() if name != "spread") == 16_176
    assert sum(p.numel() for name, p in NLinear(at).named_parameters() if name != "spread") == 8_088


@pytest.mark.parametrize("kind", ["tied", "untied", "naive"])
@pytest.mark.parametrize("name", ["bi_lstm", "bi_gru"])
def test_a_pass_is_a_function_of_window_and_masks(name, kind):
    network, x = stirred(NETWORKS[name](dropout={"p": 0.4, "kind": kind})), windows()
    masks, other = (network.draw(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    found = network(x, masks=masks).mean
    torch.testing.assert_close(network.train()(x, masks=masks).mean, found, rtol=0, atol=1e-6)
    torch.testing.assert_close(network(x[1:2], masks=masks).mean, found[1:2], rtol=0, atol=1e-5)
    assert (network(x, masks=other).mean - found).abs().max() > 1e-3
    assert (network(x).mean - found).abs().max() > 1e-3
    without = NETWORKS[name](dropout={"p": 0.4, "kind": "none"})
    assert without.draw() == {} == NETWORKS[name](dropout={"p": 0.0, "kind": kind}).draw()


def test_the_loop_takes_masks_of_each_window():
    network, x = stirred(NETWORKS["bi_gru"](engine="loop", dropout={"p": 0.4})), windows()
    masks = network.draw(torch.Generator().manual_seed(1), rows=3)
    whole = network(x, masks=masks).mean
    network.engine = "weights"
    for row in range(3):
        own = {name: mask[row : row + 1] for name, mask in masks.items()}
        torch.testing.assert_close(network(x[row : row + 1], masks=own).mean[0], whole[row], rtol=0, atol=1e-5)


def test_masks_that_enter_linearly_keep_the_mean_and_recurrent_ones_do_not():
    """Of an output mask before a linear head the mean over masks is the unmasked output; a tied recurrent mask enters
    again and again, E z² = 1/(1 − p): the unmasked pass is not the mean of the passes."""
    network, x = stirred(BiLSTM(SPEC, hidden=4, layers=1, attention=3, dropout={"p": 0.3})), windows(1)
    generator, count = torch.Generator().manual_seed(3), 4000
    with torch.no_grad():
        whole = network(x).mean.flatten()
        draws = [network.draw(generator) for _ in range(count)]
        output = torch.stack([network(x, masks={"pooled": masks["pooled"]}).mean.flatten() for masks in draws])
        recurrent = [{name: mask for name, mask in masks.items() if name != "pooled"} for masks in draws]
        through = torch.stack([network(x, masks=masks).mean.flatten() for masks in recurrent])
    apart = [((passes.mean(0) - whole).abs() / (passes.std(0) / count**0.5)).max() for passes in (output, through)]
    assert apart[0] < 4 < apart[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BiLSTM(ImageSpec(1, 8, 8, 17)), "forecasts series, but the data is an ImageSpec.*data=waves"),
        (lambda: BiLSTM(SPEC, hidden=0), "model.hidden is 0"),
        (lambda: BiLSTM(SPEC, pooling="max"), "model.pooling is 'max'"),
        (lambda: BiLSTM(SPEC, dropout={"p": 1.0}), "model.dropout.p is 1.0"),
        (lambda: BiLSTM(SPEC, dropout={"kind": "tide"}), "did you mean 'tied'"),
        (lambda: BiLSTM(SPEC, dropout={"input": 0.1}), "it needs 8 channels"),
        (lambda: NLinear(SPEC, center="first"), "model.center is 'first'"),
    ],
)
def test_what_cannot_be_is_said(make, said):
    with pytest.raises(UsageError, match=said):
        make()
