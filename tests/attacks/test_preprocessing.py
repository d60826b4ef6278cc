"""Defences by hand, and that an attack which knows them is the stronger."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from lightning_modules.attacks import adaptive, averaged, defended, pgd, preprocessing, share_right, succeeded
from lightning_modules.attacks.preprocessing import PREPROCESSING, divergence, slopes
from tests.attacks.networks import fitted, small_network

IMAGES = torch.rand(3, 3, 8, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", sorted(PREPROCESSING))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_defence_keeps_shape_and_kind_and_its_gradients_are_as_said(name, channels):
    defence, images = preprocessing(name), IMAGES[:, :channels].clone().requires_grad_()
    changed = defence(images)
    assert changed.shape == images.shape and changed.dtype == images.dtype and not torch.equal(changed, images)
    assert (defence(images) - changed).abs().max().item() > 0 or not defence.random
    through = defended(lambda x: x, defence)(images)
    (gradient,) = torch.autograd.grad(through.square().sum() / 2, images)
    torch.testing.assert_close(gradient, through.detach())
    assert defence.random or torch.equal(through, changed), "forward it is the defence itself"
    assert set(adaptive(lambda x: x, defence)) == ({"identity", "true"} if defence.differentiable else {"identity"})
    if not defence.differentiable:
        with pytest.raises(UsageError, match="through the identity"):
            defended(lambda x: x, defence, "true")


def test_bits_by_hand():
    ramp = torch.tensor([0.0, 0.4, 0.6, 1.0])
    assert preprocessing("bit_depth", bits=1)(ramp).tolist() == [0, 0, 1, 1]
    levels = preprocessing("bit_depth", bits=3)(torch.linspace(0, 1, 1000)).unique()
    torch.testing.assert_close(levels, torch.arange(8) / 7)


def test_one_bit_is_a_defence_where_no_pixel_can_cross_the_half(digits):
    images, labels = digits.images[:32].round(), digits.labels[:32]
    behind = defended(digits.network, preprocessing("bit_depth", bits=1))
    labels = behind(images).argmax(1)
    assert not succeeded(behind, pgd(behind, images, labels, eps=0.3), labels).any()


def test_medians_and_blurs_by_hand():
    found = preprocessing("median")(IMAGES)
    assert found[1, 2, 3, 4] == IMAGES[1, 2, 2:5, 3:6].median()
    assert found[0, 0, 0, 0] == F.pad(IMAGES[:1, :1], (1, 1, 1, 1), mode="reflect")[0, 0, :3, :3].median()
    blurred = preprocessing("smooth", sd=0.8)(IMAGES)
    torch.testing.assert_close(preprocessing("smooth")(torch.full((1, 1, 8, 8), 0.3)), torch.full((1, 1, 8, 8), 0.3))
    assert blurred.std() < IMAGES.std()


def test_jpeg_hardly_changes_a_smooth_image():
    smooth = torch.linspace(0, 1, 16).expand(2, 3, 16, 16).contiguous()
    assert (preprocessing("jpeg")(smooth) - smooth).abs().max() < 0.05
    rough = torch.rand(1, 1, 16, 16)
    errors = [(preprocessing("jpeg", quality=q)(rough) - rough).abs().mean().item() for q in (95, 75, 20)]
    assert errors == sorted(errors)
    with pytest.raises(UsageError, match="2 channels"):
        preprocessing("jpeg")(torch.rand(1, 2, 8, 8))


def test_total_variation_is_least():
    pair = torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64)
    found = preprocessing("tv", weight=0.1, rounds=300)(pair)  # each gives way by the weight
    torch.testing.assert_close(found, torch.tensor([[[[0.1, 0.9]]]], dtype=torch.float64))

    def energy(u):
        down, across = slopes(u)
        return ((u - IMAGES) ** 2).sum() / 2 + 0.1 * (down**2 + across**2).sqrt().sum()

    least = preprocessing("tv", weight=0.1, rounds=300)(IMAGES)
    for _ in range(20):
        assert energy(least) <= energy(least + 0.02 * torch.randn_like(least))
    down, across = torch.randn(2, 1, 1, 5, 6).unbind()
    down[..., -1, :], across[..., -1] = 0, 0
    u = torch.randn(1, 1, 5, 6)
    torch.testing.assert_close(
        (u * divergence(down, across)).sum(),
        -sum((a * b).sum() for a, b in zip(slopes(u), (down, across), strict=True)),
    )


def test_eot_is_the_mean_over_draws():
    seen = []

    def forward(images):
        seen.append(len(images))
        return images.flatten(1) * torch.arange(1, len(images) + 1)[:, None]

    images = torch.ones(2, 1, 1, 3)
    assert averaged(forward, 3)(images).tolist() == [[3.0] * 3, [4.0] * 3]  # (1 + 3 + 5)/3, (2 + 4 + 6)/3
    assert seen == [6]


def test_a_random_defence_is_judged_on_fresh_draws_and_attacked_through_their_mean(digits):
    network, images, labels = digits.first(128)
    defence = preprocessing("noise", sd=0.1)
    behind = defended(network, defence)
    unaware = pgd(network, images, labels, eps=0.1, steps=10, keep="last")
    knowing = pgd(adaptive(network, defence)["true"], images, labels, eps=0.1, steps=10, keep="last")
    defence.reseed(1)
    shares = [share_right(behind, x, labels).mean() for x in (images, unaware, knowing)]
    assert shares[0] > 0.85 and shares[2] < shares[1]
    drawn = behind(images)
    defence.reseed(1)
    again = behind(images)
    defence.reseed(1)
    assert not torch.equal(drawn, again) and torch.equal(behind(images), again)


def test_three_bits_on_colour_images_fool_only_an_attack_that_does_not_know_them(splits):
    colours = torch.rand(3, 10, 1, 1, generator=torch.Generator().manual_seed(0))

    def coloured(images, labels):  # twice the size, a tint on a grey ground
        large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return (0.3 + 0.25 * large * (0.5 + colours.movedim(1, 0)[(7 * torch.arange(len(images))) % 10])).clamp(0, 1)

    network = small_network()
    network[0], network[-1] = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Linear(2048, 10)
    fitted(network, coloured(*splits["train"]), splits["train"][1])
    images, labels = coloured(*splits["test"])[:128], splits["test"][1][:128]
    behind = defended(network, preprocessing("bit_depth", bits=3))
    eps = 16 / 255
    unaware, knowing = (pgd(way, images, labels, eps=eps, steps=10) for way in (network, behind))
    right = [(~succeeded(behind, x, labels)).float().mean().item() for x in (images, unaware, knowing)]
    assert right[0] > 0.7
    assert right[1] > right[2] + 0.1


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("bit_depth", {"bits": 0}, "1 to 16"),
        ("jpeg", {"quality": 0}, "1 to 100"),
        ("median", {"size": 2}, "odd"),
        ("smooth", {"sd": 0}, "above 0"),
        ("noise", {"sd": -1}, "0 or more"),
        ("tv", {"weight": 0}, "above 0"),
        ("jpg", {}, "did you mean 'jpeg'"),
    ],
)
def test_impossible_defences_are_refused(name, settings, said):
    with pytest.raises(UsageError, match=said):
        preprocessing(name, **settings)
