"""Masks, sizes and options of the networks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.pixelrnn import DiagonalBiLSTM, PixelCNN, RowLSTM, stack
from lightning_modules.pixelrnn.masked import MaskedConv2d, causal_mask, colour_groups
from lightning_modules.pixelrnn.stack import image_nats, sub_pixel_nats
from tests.pixelrnn.networks import NETWORKS, make, random_images


def test_colour_groups_are_thirds_of_any_width():
    assert colour_groups(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert colour_groups(3, 3).tolist() == [0, 1, 2]
    assert colour_groups(8, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert colour_groups(4, 1).tolist() == [0, 0, 0, 0]


def test_masks_are_the_papers():
    one = torch.tensor([0])
    assert causal_mask((3, 3), "A", one, one)[0, 0].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert causal_mask((1, 3), "B", one, one)[0, 0].tolist() == [[1, 1, 0]]
    rgb = torch.arange(3)
    assert causal_mask((1, 1), "A", rgb, rgb)[:, :, 0, 0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert causal_mask((1, 1), "B", rgb, rgb)[:, :, 0, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", [1, (1, 3)])
@pytest.mark.parametrize("kind", ["A", "B"])
def test_only_a_mask_that_hides_nothing_is_left_out(kind, kernel, channels):
    conv = MaskedConv2d(6, 12, kernel, kind, channels, gates=4)
    assert conv.hides == (not conv.mask.all())
    torch.testing.assert_close(conv.masked_weight, conv.weight * conv.mask, rtol=0, atol=0)


def test_a_convolution_of_single_pixels_is_one_product():
    conv, x = MaskedConv2d(6, 9, 1, "B", 3).double(), torch.randn(2, 6, 3, 4).double()
    for form in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(conv.by_product(x.contiguous(memory_format=form)), conv(x))


@pytest.mark.parametrize("levels", [2, 17, 300])
@pytest.mark.parametrize(("channels", "hidden"), [(1, 1), (1, 5), (3, 3), (3, 7), (3, 8)])
@pytest.mark.parametrize("network", NETWORKS)
def test_any_size_gives_logits_of_the_stated_shape(network, channels, hidden, levels):
    spec = ImageSpec(channels, 3, 5, levels)
    made = make(network, spec, hidden=hidden, layers=2, output_maps=9, skip=True)
    for dtype in (torch.int16, torch.int64, torch.float32):
        assert made(random_images(spec, 2, dtype)).shape == (2, levels, channels, 3, 5)


@pytest.mark.parametrize("network", NETWORKS)
def test_integer_and_floating_images_are_the_same(network):
    spec = ImageSpec(3, 4, 3, levels=6)
    made, images = make(network, spec), random_images(spec, 2)
    torch.testing.assert_close(made(images), made(images.double()), rtol=0, atol=0)


@pytest.mark.parametrize("option", ["residual", "skip"])
@pytest.mark.parametrize("network", NETWORKS)
def test_each_connection_matters(network, option):
    spec = ImageSpec(1, 4, 4, levels=4)
    images = random_images(spec, 2)
    outputs = []
    for value in (True, False):
        torch.manual_seed(1)
        made = network(spec, hidden=6, layers=2, **{option: value}).double().eval()
        outputs.append(made(images))
    assert not torch.allclose(*outputs)


@pytest.mark.parametrize("network", [PixelCNN, RowLSTM, DiagonalBiLSTM])
def test_gradient_checkpointing_changes_nothing(network):
    spec = ImageSpec(3, 4, 5, levels=4)
    images, gradients = random_images(spec, 2), []
    for value in (True, False):
        torch.manual_seed(1)
        made = network(spec, hidden=6, layers=2, dropout=0.5, gradient_checkpointing=value).double()
        torch.manual_seed(2)
        image_nats(made(images), images).sum().backward()
        gradients.append([parameter.grad for parameter in made.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_autocast_is_near_float32(network):
    spec = ImageSpec(3, 6, 6, levels=16)
    made, images = network(spec, hidden=12, layers=2).eval(), random_images(spec, 4)
    exact = image_nats(made(images), images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = image_nats(made(images), images)
    rough.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    torch.testing.assert_close(rough, exact, rtol=5e-3, atol=0)


@pytest.mark.parametrize("at_once", [7, 100, 10**9])
@pytest.mark.parametrize("channels", [1, 3])
def test_nats_in_pieces_are_those_of_all_logits_at_once(channels, at_once, monkeypatch):
    """Values and gradients, with pieces that do not divide the pixels evenly."""
    spec = ImageSpec(channels, 3, 5, levels=4)
    made, images = make(RowLSTM, spec), random_images(spec, 3)
    wanted = sub_pixel_nats(made(images), images)
    monkeypatch.setattr(stack, "LOGITS_AT_ONCE", at_once)
    found = made.nats(images)
    torch.testing.assert_close(found, wanted)
    towards, parameters = torch.randn_like(wanted), [p for p in made.parameters() if p.requires_grad]
    for mine, theirs in zip(
        torch.autograd.grad(found, parameters, towards), torch.autograd.grad(wanted, parameters, towards), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_batchs_logits_never_exist_at_once(monkeypatch):
    spec = ImageSpec(3, 8, 8, levels=256)
    made, images = make(PixelCNN, spec), random_images(spec, 4)
    monkeypatch.setattr(stack, "LOGITS_AT_ONCE", 2**14)
    sizes = []

    def cross_entropy(logits, *args, **more):
        sizes.append(logits.numel())
        return F.cross_entropy(logits, *args, **more)

    monkeypatch.setattr(stack, "F", SimpleNamespace(**vars(F) | {"cross_entropy": cross_entropy}))
    made.nats(images).sum().backward()
    assert max(sizes) <= 2**14 and sum(sizes) == 2 * 4 * spec.dims * 256, "once forward, once for the backward pass"


def test_a_gain_changes_how_fast_the_heads_last_weights_learn_and_nothing_else():
    images, changes, outputs = random_images(ImageSpec(3, 5, 4, 6), 2), [], []
    for gain in (1.0, 8.0):
        torch.manual_seed(0)
        made = PixelCNN(ImageSpec(3, 5, 4, 6), hidden=6, layers=1, head_gain=gain)
        outputs.append(made(images))
        before = made.head[-1].masked_weight.detach()
        made.nats(images).mean().backward()
        torch.optim.Adam(made.parameters(), lr=0.01).step()
        changes.append(made.head[-1].masked_weight.detach() - before)
    torch.testing.assert_close(*outputs)
    moved = changes[0].abs() > 0.0099  # where Adam's epsilon does not count
    assert moved.any()
    torch.testing.assert_close(changes[1][moved], 8 * changes[0][moved], rtol=0.02, atol=0)


def test_image_nats_are_those_of_each_sub_pixels_softmax():
    images = torch.tensor([[[[0, 2]]]])
    logits = torch.randn(1, 3, 1, 1, 2)
    by_hand = -F.log_softmax(logits[0, :, 0, 0, 0], 0)[0] - F.log_softmax(logits[0, :, 0, 0, 1], 0)[2]
    torch.testing.assert_close(image_nats(logits, images), by_hand[None])
    flat = torch.zeros(5, 256, 3, 32, 32)
    nats = image_nats(flat, torch.zeros(5, 3, 32, 32, dtype=torch.uint8))
    torch.testing.assert_close(nats, torch.full((5,), 3072 * math.log(256)))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden": 2}, "needs? at least 3"),
        ({"layers": -1}, "0 or more"),
        ({"first_kernel": 4}, "odd"),
        ({"kernel": 2}, "odd"),
        ({"output_maps": 2}, "at least 3"),
        ({"dropout": 1.0}, "probability"),
        ({"head_gain": 0.0}, "above 0"),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(sizes, message):
    with pytest.raises(UsageError, match=message):
        PixelCNN(ImageSpec(3, 4, 4, 4), **sizes)


@pytest.mark.parametrize("network", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("option", ["initial_state", "engine"])
def test_unknown_choices_are_refused(network, option):
    with pytest.raises(UsageError, match=f"model.{option} is 'other'"):
        network(ImageSpec(1, 4, 4, 4), hidden=4, layers=1, **{option: "other"})


@pytest.mark.parametrize("network", NETWORKS)
def test_text_is_refused_with_the_right_data_named(network):
    with pytest.raises(UsageError, match="data=digits"):
        network(TextSpec("abc"))
