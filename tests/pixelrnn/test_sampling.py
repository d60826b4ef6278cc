"""The incremental sampler draws what full passes of the network draw, exactly."""

from __future__ import annotations

import pytest
import torch

from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn.incremental import NetworkSteps
from lightning_modules.pixelrnn.sampling import complete, complete_by_full_passes
from tests.pixelrnn.networks import NETWORKS, make, random_images

VARIANTS = [
    {},
    {"skip": True, "head_gain": 2.0},
    {"residual": False},
    {"conditional": True, "hidden": 7},
    {"initial_state": "zero"},
]


def variant_of(network: type, spec: ImageSpec, variant: dict) -> torch.nn.Module:
    if "initial_state" in variant and network.__name__ not in ("RowLSTM", "DiagonalBiLSTM"):
        pytest.skip("no recurrence")
    return make(network, spec, layers=2, **variant)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("first_row", [0, 2])
@pytest.mark.parametrize("size", [(4, 5), (5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_noise_gives_the_same_pixels(network, channels, size, first_row, variant):
    spec = ImageSpec(channels, *size, levels=5, classes=3)
    made, given = variant_of(network, spec, variant), random_images(spec, 3)
    labels = torch.tensor([2, 0, 1])
    drawn, wanted = (
        how(made, given, first_row, labels=labels, generator=torch.Generator().manual_seed(5), temperature=0.9)
        for how in (complete, complete_by_full_passes)
    )
    assert torch.equal(drawn.long(), wanted)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_logits_agree_in_float32(network, channels):
    spec = ImageSpec(channels, 6, 7, levels=16)
    made, images = make(network, spec, layers=3, hidden=9).float(), random_images(spec, 2)
    with torch.no_grad():
        wanted, steps = made(images), NetworkSteps(made, 2, 7)
        for row in range(6):
            for column in range(7):
                pixel = images[:, :, row, column]
                for channel in range(channels):
                    known = pixel.clone()
                    known[:, channel:] = 0
                    logits = steps.logits(steps.step(known, column), channel)
                    torch.testing.assert_close(logits, wanted[:, :, channel, row, column], rtol=1e-4, atol=1e-4)
                steps.put(pixel, column)
            steps.end_row()
