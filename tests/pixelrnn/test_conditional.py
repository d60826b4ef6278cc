"""Class-conditional networks, completions, and what the report works out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn.analysis import independent_pixels_bits, nearest, receptive_field
from lightning_modules.pixelrnn.sampling import complete, sample
from lightning_modules.pixelrnn.stack import image_nats
from tests.conftest import QUICK, run_here
from tests.pixelrnn.networks import NETWORKS, make, random_images
from tests.pixelrnn.test_distribution import all_images

LABELLED = ImageSpec(1, 2, 2, levels=2, classes=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("network", NETWORKS)
def test_each_class_is_a_distribution_of_its_own(network):
    made = make(network, LABELLED, layers=2, conditional=True)
    images = all_images(LABELLED)
    stated = []
    for label in range(3):
        labels = torch.full((len(images),), label)
        with torch.no_grad():
            stated.append(torch.exp(-image_nats(made(images, labels), images)))
        assert stated[-1].sum().item() == pytest.approx(1, abs=1e-5)
        drawn = sample(made, 4000, labels=labels[:1].expand(4000), generator=generator())
        frequency = (drawn.long().flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16) / 4000
        assert (frequency - stated[-1]).abs().max() < 0.04
    assert not torch.allclose(stated[0], stated[1], atol=0.01)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_new_conditional_network_does_not_yet_tell_classes_apart(network):
    made = network(LABELLED, hidden=4, layers=1, conditional=True).eval()
    images = random_images(LABELLED, 3)
    torch.testing.assert_close(made(images, torch.tensor([0, 1, 2])), made(images, torch.tensor([2, 0, 1])))


def test_conditions_that_cannot_be_met_are_refused(tmp_path):
    with pytest.raises(UsageError, match="needs labels"):
        NETWORKS[0](ImageSpec(1, 2, 2, 2), hidden=4, layers=1, conditional=True)
    with pytest.raises(UsageError, match="give the images' labels"):
        make(NETWORKS[0], LABELLED, conditional=True)(random_images(LABELLED, 1))
    with pytest.raises(UsageError, match="conditional=true"):
        run_here([*QUICK, "task.module.label=3"], tmp_path)
    with pytest.raises(UsageError, match="0 to 9"):
        run_here([*QUICK, "task.module.label=10", "model.conditional=true"], tmp_path)


def test_a_conditional_run_draws_every_class_and_one_alone(tmp_path):
    small = ["model.hidden=6", "model.layers=1", "model.conditional=true"]
    run_here([*QUICK, *small, "task.module.samples=20"], tmp_path / "run")
    assert len(np.load(tmp_path / "run/samples.npy")) == 20
    words = [
        "stages=[sample,complete]",
        f"ckpt_path={tmp_path / 'run'}",
        "task.module.label=7",
        "task.module.samples=3",
    ]
    run_here(words, tmp_path / "seven")
    assert len(np.load(tmp_path / "seven/samples.npy")) == 3
    assert np.load(tmp_path / "seven/completions.npy").shape == (2, 3, 1, 8, 8)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_completion_keeps_what_is_given_and_draws_the_rest(network):
    spec = ImageSpec(3, 4, 3, levels=6)
    made, images = make(network, spec), random_images(spec, 5)
    drawn = complete(made, images, 2, generator=generator())
    assert torch.equal(drawn[:, :, :2], images[:, :, :2])
    assert not torch.equal(drawn[:, :, 2:], images[:, :, 2:])
    assert torch.equal(drawn, complete(made, drawn, 4, generator=generator())), "nothing left to draw"


def test_completions_have_the_conditional_frequencies():
    spec = ImageSpec(1, 2, 2, levels=2)
    made = make(NETWORKS[2], spec)
    given = torch.tensor([[[[1, 0], [0, 0]]]])
    images = all_images(spec)
    with torch.no_grad():
        joint = torch.exp(-image_nats(made(images), images))
    fits = (images[:, 0, 0] == given[0, 0, 0]).all(1)
    wanted = joint[fits] / joint[fits].sum()
    drawn = complete(made, given.expand(8000, -1, -1, -1), 1, generator=generator()).long()
    found = (drawn[:, 0, 1] * torch.tensor([2, 1])).sum(1).bincount(minlength=4) / 8000
    torch.testing.assert_close(found.double(), wanted, atol=0.02, rtol=0)


def test_independent_pixels_are_counted_by_position():
    train = np.zeros((98, 1, 1, 2), dtype=np.uint8)
    train[:49, ..., 1] = 1
    bits = independent_pixels_bits(train, train, levels=2)
    assert bits == pytest.approx((-math.log2(99 / 100) - math.log2(50 / 100)) / 2)


def test_the_nearest_image_is_itself_where_it_is_there():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    assert nearest(images[[7, 3]], images).tolist() == [7, 3]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_receptive_field_holds_earlier_pixels_only(network):
    spec = ImageSpec(1, 5, 6, levels=4)
    field = receptive_field(make(network, spec), random_images(spec, 8), None, 2, 3)
    assert field.shape == (5, 6) and field[2, 2] > 0 and field[1, 3] > 0
    assert not field[3:].any() and not field[2, 3:].any()
