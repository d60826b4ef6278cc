"""Generators, discriminators, pool and losses, each alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.adaptation.translation import CyCADA, CycleGAN
from lightning_modules.adaptation.translation.discriminators import PatchDiscriminator, field, map_side
from lightning_modules.adaptation.translation.generators import Generator, InstanceNorm
from lightning_modules.adaptation.translation.losses import fooling_loss, judged_loss, pixel_loss, semantic_loss
from lightning_modules.adaptation.translation.pool import ImagePool

SPEC = ImageSpec(3, 28, 28, 256, 10)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("width", "blocks", "number"), [(64, 9, 11_378_179), (64, 6, 7_837_699), (32, 4, 1_374_723), (16, 2, 198_659)]
)
def test_generators_have_the_papers_parameters(width, blocks, number):
    with torch.device("meta"):
        assert parameters(Generator(3, width, blocks)) == number


@pytest.mark.parametrize(
    ("width", "layers", "number", "side", "patch"),
    [(64, 1, 136_385, 12, 16), (32, 1, 35_425, 12, 16), (64, 3, 2_764_737, 1, 70), (64, 2, None, 5, 34)],
)
def test_discriminators_have_the_papers_parameters_and_patches(width, layers, number, side, patch):
    judge = PatchDiscriminator(3, width, layers, 28)
    assert number in (None, parameters(judge))
    assert map_side(28, layers) == side and field(layers) == patch
    assert judge(torch.zeros(2, 3, 28, 28)).shape == (2, 1, side, side)


def test_a_judgement_sees_its_patch_alone():
    """By the gradient of one judgement; the norms are left out, through which every pixel is seen."""
    judge = PatchDiscriminator(1, 4, 1, 40)
    judge.norm = nn.Identity()
    image = torch.randn(1, 1, 40, 40, requires_grad=True)
    judge(image)[0, 0, 9, 9].backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == field(1) == 16


@pytest.mark.parametrize("side", [28, 32, 8])
def test_a_translation_is_as_large_as_its_original_and_in_range(side):
    made = Generator(3, 4, 1)(torch.rand(2, 3, side, side) * 2 - 1)
    assert made.shape == (2, 3, side, side) and made.abs().max() <= 1 and made.dtype == torch.float32


def test_noise_makes_one_image_many():
    generator = Generator(1, 4, 1, noise=8)
    image = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        generator.leave.weight.mul_(50)  # of the size that training gives it
        one, other = generator(image), generator(image)
    assert (one - other).abs().mean() > 0.05, "drawn anew, and no normalisation takes it away"
    z = generator.draw(image, seed=3)
    assert torch.equal(z, generator.draw(image, seed=3)) and z.shape == (1, 8, 8, 8)
    assert torch.equal(generator(image, z), generator(image, z))
    assert generator.enter.in_channels == 9 and Generator(1, 4, 1).draw(image) is None


def test_weights_begin_small():
    generator = Generator(3, 32, 4)
    weights = torch.cat([p.detach().flatten() for name, p in generator.named_parameters() if name.endswith("weight")])
    assert weights.std() == pytest.approx(0.02, rel=0.01) and weights.mean().abs() < 1e-4
    assert all(not p.any() for name, p in generator.named_parameters() if name.endswith("bias"))


def test_a_constant_plane_becomes_nothing_in_half_precision_too():
    found = InstanceNorm()(torch.full((1, 2, 5, 5), 0.3, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16 and found.abs().max() < 1e-3
    x = torch.randn(2, 3, 4, 5)
    assert torch.allclose(InstanceNorm()(x), nn.InstanceNorm2d(3)(x)), "no scale, no shift, no running statistics"
    assert not [*InstanceNorm().state_dict()]


@pytest.mark.parametrize(("judgement", "fooling", "judged"), [(1.0, 0.0, 0.5), (0.0, 1.0, 0.5), (0.5, 0.25, 0.25)])
def test_least_squares_of_a_judge_that_says_always_the_same(judgement, fooling, judged):
    said = torch.full((2, 1, 3, 3), judgement)
    assert fooling_loss(said) == pytest.approx(fooling) and judged_loss(said, said) == pytest.approx(judged)


def test_the_cycle_is_a_mean_over_pixels_and_nothing_of_identities():
    x = torch.rand(2, 3, 4, 4) * 2 - 1
    assert pixel_loss(x, x) == 0 and pixel_loss(x + 0.25, x) == pytest.approx(0.25)


def test_the_gate_leaves_out_unsure_labels():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    assert semantic_loss(logits, labels) == pytest.approx(each.mean().item())
    sure = torch.tensor([0.9, 0.2, 0.5, 0.1])
    assert semantic_loss(logits, labels, sure, 0.0) == pytest.approx(each.mean().item())
    assert semantic_loss(logits, labels, sure, 0.5) == pytest.approx((each[0] + each[2]).item() / 4)


# The pool


def numbered(first: int, items: int) -> torch.Tensor:
    return torch.arange(first, first + items).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_a_pool_of_none_gives_back_what_it_is_given():
    pool = ImagePool(0, (1, 2, 2))
    assert torch.equal(pool.query(numbered(0, 3)), numbered(0, 3))


def test_what_comes_back_was_given_and_by_an_even_chance_earlier():
    pool, given, earlier, after = ImagePool(50, (1, 2, 2)), 0, 0, 0
    for items in [7] * 8 + [64, 1] * 40:
        was_full = int(pool.count) == 50
        back = pool.query(numbered(given, items))[:, 0, 0, 0]
        kept = pool.images[: pool.count, 0, 0, 0]
        assert pool.count <= 50 and back.max() < given + items
        if was_full and items == 1:
            earlier, after = earlier + int(back[0] < given), after + 1
            assert (kept == given).any() == bool(back[0] < given), "it takes an old one's place, or is not kept"
        if not was_full and given + items <= 50:
            assert back.tolist() == list(range(given, given + items)), "while it fills all come back"
        assert len(set(kept.tolist())) == len(kept)
        given += items
    assert after == 40 and abs(earlier - 20) < 4 * (40 / 4) ** 0.5


def test_the_pool_is_what_a_loop_over_images_makes_of_it():
    """The authors' own, image by image, with the same draws."""
    pool, kept = ImagePool(5, (1, 2, 2)), []
    for number in range(6):
        images = numbered(10 * number, 4)
        torch.manual_seed(number)
        back = pool.query(images)
        torch.manual_seed(number)
        swapped, places, wanted = torch.rand(4) > 0.5, torch.randint(5, (4,)), []
        for image, swap, place in zip(images, swapped, places, strict=True):
            if len(kept) < 5:
                kept.append(image)
                wanted.append(image)
            elif swap:
                wanted.append(kept[place])
                kept[place] = image
            else:
                wanted.append(image)
        assert torch.equal(back, torch.stack(wanted))
    assert torch.equal(pool.images, torch.stack(kept))


def test_the_pool_survives_a_checkpoint_and_keeps_no_graph():
    pool, other = ImagePool(4, (1, 2, 2)), ImagePool(4, (1, 2, 2))
    images = numbered(0, 3).clone().requires_grad_()
    assert not pool.query(images * 1).requires_grad
    other.load_state_dict(pool.state_dict())
    torch.manual_seed(1)
    one = pool.query(numbered(10, 6))
    torch.manual_seed(1)
    assert torch.equal(one, other.query(numbered(10, 6))) and torch.equal(pool.images, other.images)


# The networks


def test_intensities_and_ranges_are_each_others_inverse():
    network = CycleGAN(SPEC, generator_width=2, generator_blocks=1, discriminator_width=2)
    images = torch.randint(256, (2, 3, 28, 28), dtype=torch.uint8)
    x = network.scaled(images)
    assert x.min() >= -1 and x.max() <= 1
    assert torch.allclose(network.intensities(x), images.float(), atol=1e-4)
    assert torch.allclose(network.classify(x), network(images), atol=1e-5)


def test_the_labeller_stays_in_evaluation_mode_and_learns_nothing():
    network = CyCADA(SPEC, generator_width=2, generator_blocks=1, discriminator_width=2, norm="joint", dropout=0.5)
    network.train()
    assert not network.labeller.training and not network.labeller.dropout.training and network.classifier.training
    assert not any(parameter.requires_grad for parameter in network.labeller.parameters())
    x = torch.randn(2, 3, 28, 28, requires_grad=True)
    network.label_logits(x.tanh()).sum().backward()
    assert x.grad.abs().sum() > 0, "a gradient flows through it"
    network.eval()
    assert not network.classifier.training


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        (ImageSpec(3, 30, 28, 256, 10), {}, "30×28: choose data whose sides are multiples of 4"),
        (SPEC, {"discriminator_layers": 4}, r"discriminator_layers=4 leave nothing of images of 28 pixels"),
        (SPEC, {"generator_width": 0}, r"model\.generator_width is 0, but it must be 1 or more"),
        (SPEC, {"noise": -1}, r"model\.noise is -1, but it must be 0 or more"),
    ],
)
def test_networks_that_cannot_be_are_one_sentence(spec, settings, said):
    with pytest.raises(UsageError, match=said):
        CycleGAN(spec, **settings)
