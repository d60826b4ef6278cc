"""What the benchmarks measure against computes the same."""

from __future__ import annotations

import torch

from benchmarks.common_forms import CommonNetwork
from benchmarks.loop import measured
from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM
from lightning_modules.pixelrnn.masked import MaskedConv2d


def test_the_common_form_of_a_network_is_the_network_without_masks():
    made = DiagonalBiLSTM(ImageSpec(3, 5, 6, 4), hidden=6, layers=2, initial_state="zero", output_maps=9, head_gain=2.0)
    common, images = CommonNetwork(made), torch.randint(0, 4, (2, 3, 5, 6))
    assert not any(isinstance(part, MaskedConv2d) for part in common.modules())
    torch.testing.assert_close(common(images), made(images))
    common(images).square().mean().backward()
    assert all(part.weight.grad is not None for part in common.modules() if isinstance(part, torch.nn.Conv2d))


def test_a_run_s_own_steps_are_timed_beside_bare_ones():
    found = measured(
        ["task=classification", "model.filters=4", "model.depth=3", "trainer.accelerator=cpu"], steps=2, rounds=2
    )
    assert {kind: len(times) for kind, times in found.times.items()} == {"loop": 2, "bare": 2}
    assert found.done == 6  # the first two do not count
