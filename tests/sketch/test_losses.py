"""L_R by hand, L_KL against a library, its floor and annealing."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from datamodules.errors import UsageError
from datamodules.spec import SketchSpec
from datamodules.strokes.batches import SketchBatch
from lightning_modules.sketch import Sketch, SketchDecoder, SketchRNN
from lightning_modules.sketch.losses import annealed, divergence, reconstruction
from lightning_modules.sketch.mixture import outputs
from lightning_modules.sketch.module import fixed_noise

SPEC = SketchSpec(6, 1.0)
SIZES = {"decoder": 6, "mixtures": 2}
KL = {"weight": 0.5, "floor": 0.2, "start": 0.01, "rate": 0.999}


def module(network, **how) -> Sketch:
    return Sketch(network, partial(torch.optim.SGD, lr=0.1), lambda optimizer, total_steps: None, **how)


def batch() -> SketchBatch:
    strokes = torch.zeros(1, 4, 5)
    strokes[0, :3, :2] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
    strokes[0, :2, 2], strokes[0, 2, 3], strokes[0, 3, 4] = 1, 1, 1
    return SketchBatch(strokes, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


def test_three_points_by_hand():
    """One standard Gaussian, pens 1/2, 1/4, 1/4."""
    parameters = torch.zeros(1, 4, outputs(1))
    parameters[..., -3] = math.log(2)
    given = batch().strokes
    nats = reconstruction(parameters, given, False)
    assert nats.offsets.item() == pytest.approx(3 * math.log(2 * math.pi) + 0.5 * (1 + 4), abs=1e-5)
    assert nats.pens.item() == pytest.approx(2 * math.log(2) + math.log(4) + math.log(4), abs=1e-5)
    padded = torch.cat([given, given[:, -1:], given[:, -1:]], 1)
    wider = torch.cat([parameters, parameters[:, :2]], 1)
    assert reconstruction(wider, padded, True).pens.item() == pytest.approx(8 * math.log(2) + 2 * math.log(2), abs=1e-5)


@pytest.mark.parametrize("pad_loss", [False, True])
def test_the_figures_are_the_papers(pad_loss):
    network = SketchDecoder(SPEC, **SIZES).eval()
    given = batch()
    found = module(network, pad_loss=pad_loss).measure(given, "test")
    strokes = given.strokes
    if pad_loss:
        strokes = torch.cat([strokes, strokes[:, -1:], strokes[:, -1:]], 1)
    nats = reconstruction(network(strokes), strokes, pad_loss)
    values = {name: value.item() for name, value in found.values.items()}
    assert values["l_s"] == pytest.approx(nats.offsets.item() / 6) and values["l_p"] == pytest.approx(
        nats.pens.item() / 6
    )
    assert values["l_r"] == pytest.approx(values["l_s"] + values["l_p"]) == pytest.approx(found.loss.item())
    plain = reconstruction(network(given.strokes), given.strokes, False)
    assert values["nats_per_sketch"] == pytest.approx((plain.offsets + plain.pens).item(), rel=1e-5)
    assert values["l_r_floored"] == pytest.approx(values["l_r"], abs=1e-2)


def test_the_floor_of_a_density_makes_far_points_look_near():
    parameters = torch.zeros(1, 4, outputs(1))
    far = batch().strokes.clone()
    far[0, 1, 0] = 1000.0
    nats = reconstruction(parameters, far, False)
    assert nats.offsets > 100_000 and nats.floored < 2 * 13.9 + 4


def test_the_divergence_is_the_librarys():
    mean, log_variance = torch.randn(4, 7), torch.randn(4, 7)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(7 * divergence(mean, log_variance), expected)


def test_eta_grows_from_its_start():
    assert annealed(0, 0.01, 0.999) == pytest.approx(0.01)
    assert annealed(1, 0.01, 0.999) == pytest.approx(1 - 0.99 * 0.999)
    assert annealed(10**5, 0.01, 0.99995) == pytest.approx(1 - 0.99 * 0.99995**10**5)


@pytest.mark.parametrize(("floor", "moves"), [(5.0, False), (0.0, True)])
def test_below_the_floor_the_divergence_has_no_gradient(floor, moves):
    network = SketchRNN(SPEC, encoder=4, latent=3, **SIZES)
    own = module(network.eval(), kl={**KL, "floor": floor, "start": 1.0})
    given = batch()
    found = own.measure(given, "val").loss
    only = found - own.measure(given, "val").values["l_r"].mean()
    gradient = torch.autograd.grad(only, network.log_variance.bias)[0]
    assert (gradient.abs().sum() > 1e-6) == moves


def test_a_tested_drawing_has_a_noise_of_its_own():
    rows = torch.tensor([3, 0, 7])
    torch.testing.assert_close(fixed_noise(rows, 4)[1:2], fixed_noise(rows[1:2], 4))
    noise = fixed_noise(torch.arange(2000), 4)
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, but it must be above 0 .0 would be the most probable"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"draws": 0}, "draws is 0"),
        ({"steps": 1}, "steps is 1"),
        ({"format": "png"}, "format is 'png'"),
        ({"class_name": "cat"}, "no class 'cat': this network was trained on drawings without classes"),
        ({"kl": {**KL, "rate": 1.5}}, "task.module.kl.rate is 1.5"),
        ({"kl": {**KL, "weight": -1}}, "task.module.kl.weight is -1"),
        ({"judged": 0}, "task.module.judged is 0"),
    ],
)
def test_what_cannot_be_is_said(how, said):
    with pytest.raises(UsageError, match=said):
        module(SketchDecoder(SPEC, **SIZES), **how)


def test_items_are_compared_by_their_bound():
    assert Sketch.item_figures({"elbo_nats": np.ones(3)})["elbo_nats"].tolist() == [1, 1, 1]
