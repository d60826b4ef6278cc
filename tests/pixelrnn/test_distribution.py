"""The networks are probability distributions over images, and what is drawn has the probabilities stated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM
from lightning_modules.pixelrnn.sampling import sample
from lightning_modules.pixelrnn.stack import image_nats
from tests.pixelrnn.networks import NETWORKS, make

SPECS = [ImageSpec(1, 2, 2, levels=2), ImageSpec(3, 1, 2, levels=3)]  # 16 images, 729 images


def all_images(spec: ImageSpec) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(spec.levels), repeat=spec.dims))).view(-1, *spec.shape)


def probabilities(network: torch.nn.Module, spec: ImageSpec, temperature: float = 1.0) -> np.ndarray:
    images = all_images(spec)
    with torch.no_grad():
        return torch.exp(-image_nats(network(images) / temperature, images)).numpy()


def p_value(network: torch.nn.Module, spec: ImageSpec, drawn: torch.Tensor, temperature: float = 1.0) -> float:
    """Of the chi-square test of draws against stated probabilities; rare images are counted together."""
    place = spec.levels ** torch.arange(spec.dims - 1, -1, -1)
    counts = np.bincount((drawn.long().flatten(1) * place).sum(1).numpy(), minlength=spec.levels**spec.dims)
    wanted = probabilities(network, spec, temperature) * len(drawn)
    rare = wanted < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        wanted = np.append(wanted[~rare], wanted[rare].sum())
    return chisquare(counts, wanted).pvalue


@pytest.mark.parametrize("spec", SPECS, ids=["2x2 binary", "1x2 RGB"])
@pytest.mark.parametrize("network", NETWORKS)
def test_probabilities_sum_to_one(network, spec):
    assert probabilities(make(network, spec, layers=2), spec).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("spec", SPECS, ids=["2x2 binary", "1x2 RGB"])
@pytest.mark.parametrize("network", NETWORKS)
def test_draws_have_the_stated_frequencies(network, spec, temperature):
    made = make(network, spec)
    drawn = sample(made, 20_000, temperature=temperature, generator=torch.Generator().manual_seed(1))
    assert p_value(made, spec, drawn, temperature) > 1e-3


def test_draws_of_another_distribution_are_told_apart():
    spec = SPECS[0]
    made = make(DiagonalBiLSTM, spec)
    drawn = sample(made, 20_000, temperature=0.8, generator=torch.Generator().manual_seed(1))
    assert p_value(made, spec, drawn) < 1e-3


def test_sampling_is_repeated_by_its_seed_and_leaves_the_mode_alone():
    spec = ImageSpec(3, 3, 2, levels=5)
    made = make(DiagonalBiLSTM, spec).train()
    first, again, other = (sample(made, 6, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert made.training
    assert first.dtype == torch.uint8 and first.shape == (6, 3, 3, 2) and first.max() < 5
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("count", "temperature"), [(0, 1.0), (4, 0.0), (4, -1.0)])
def test_impossible_draws_are_refused(count, temperature):
    with pytest.raises(UsageError, match="must be"):
        sample(make(DiagonalBiLSTM, SPECS[0]), count, temperature=temperature)
