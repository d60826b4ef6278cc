"""Generators, losses, images of controls, and one step of each player: what the paper says of them."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.images.shared.data_free import Counter, DataFree
from datamodules.images.shared.image import Split
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, ResNet
from lightning_modules.distillation import DFAD, Distillation, Generator
from lightning_modules.distillation.images import Source, as_wanted, pictures
from lightning_modules.distillation.losses import class_entropy, discrepancy, hinton
from lightning_modules.distillation.teacher import Teacher, flops_of
from lightning_modules.schedules import milestones

DIGITS = ImageSpec(1, 8, 8, 17, 10)
SMALL = {
    "student": "cnn",
    "student_width": 2,
    "latent": 3,
    "generator": "upsample",
    "generator_width": 3,
    "last_norm": True,
}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Networks


@pytest.mark.parametrize(
    ("spec", "latent", "width", "count"),
    [
        (ImageSpec(1, 32, 32, 256, 10), 100, 64, 1_049_985),
        (ImageSpec(3, 32, 32, 256, 10), 256, 64, 2_329_091),
        (DIGITS, 64, 32, 72_641),
    ],
)
def test_the_generators_parameters_are_the_authors(spec, latent, width, count):
    assert parameters(Generator(spec, latent=latent, kind="upsample", width=width, last_norm=True)) == count


@pytest.mark.parametrize("kind", ["upsample", "dcgan"])
def test_images_have_mean_0_and_variance_1_in_each_channel(kind):
    spec = ImageSpec(3, 8, 12, 256, 10)
    made = Generator(spec, latent=5, kind=kind, width=8, last_norm=True)
    before_norm: list[Tensor] = []
    made.image[1].register_forward_hook(lambda layer, given, found: before_norm.append(found))
    images = made.train()(torch.randn(64, 5))
    assert images.shape == (64, 3, 8, 12)
    variance = before_norm[0].double().var((0, 2, 3), correction=0)
    expected = variance / (variance + 1e-5)  # ε, which shows where tanh's images hardly differ
    x = images.double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.var((0, 2, 3), correction=0), expected, rtol=0, atol=1e-3)
    plain = Generator(spec, latent=5, kind=kind, width=8, last_norm=False)(torch.randn(64, 5))
    assert plain.abs().max() <= 1
    assert all(layer.eps == 1e-5 for layer in made.modules() if isinstance(layer, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("student", "width", "classes", "count"),
    [
        ("resnet18", 64, 10, 11_173_962),
        ("resnet18", 40, 10, 4_368_690),
        ("resnet18", 28, 10, 2_142_822),
        ("resnet18", 28, 100, 2_163_072),
        ("resnet34", 28, 10, 4_079_414),
        ("resnet10", 60, 10, 4_310_230),
    ],
)
def test_students_of_cifar_have_the_tables_sizes(student, width, classes, count):
    with torch.device("meta"):
        spec = ImageSpec(3, 32, 32, 256, classes)
        network = DFAD(spec, **(SMALL | {"student": student, "student_width": width}))
    assert parameters(network) == count and isinstance(network.student, ResNet)


def test_operations_are_two_to_a_multiply_add():
    spec = ImageSpec(3, 32, 32, 256, 10)
    assert round(flops_of(ResNet(spec, depth=18, width=28), spec) / 1e6) == 213
    assert round(flops_of(ResNet(spec, depth=34, width=64), spec) / 1e6) == 2319


# Losses


def test_the_discrepancy_is_a_double_loop():
    teacher, student = torch.randn(2, 4, 3, dtype=torch.float64)
    loop = sum(abs(float(teacher[b, c] - student[b, c])) for b in range(4) for c in range(3)) / (4 * 3)
    squares = sum(float(teacher[b, c] - student[b, c]) ** 2 for b in range(4) for c in range(3)) / (4 * 3)
    assert discrepancy(teacher, student).item() == pytest.approx(loop, rel=1e-12)
    assert discrepancy(teacher, student, "mse").item() == pytest.approx(squares, rel=1e-12)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    divergence = 4 * (p * (p / q).log()).sum(1).mean().item()
    assert discrepancy(teacher, student, "kl", 2.0).item() == pytest.approx(divergence, rel=1e-12)
    labels = torch.tensor([0, 2, 1, 1])
    hard = -student.log_softmax(1)[torch.arange(4), labels].mean().item()
    expected = 0.9 * discrepancy(teacher, student, "kl", 4.0).item() + 0.1 * hard
    assert hinton(teacher, student, labels).item() == pytest.approx(expected, rel=1e-12)


def test_differences_of_logits_are_not_rounded_to_half_precision():
    teacher = torch.tensor([[20.0, 0.0]]).bfloat16()
    assert discrepancy(teacher, torch.tensor([[20.01, 0.0]])).item() == pytest.approx(0.005, rel=1e-3)


def test_the_entropy_of_classes():
    assert class_entropy(torch.arange(100) % 10, 10).item() == pytest.approx(np.log(10))
    assert class_entropy(torch.zeros(7, dtype=torch.int64), 10) == 0


def test_kls_gradient_vanishes_where_l1s_does_not():
    """Section 3.3 of the paper: what a step is told when the student is nearly right."""
    teacher = torch.randn(8, 10, dtype=torch.float64)
    norms = {}
    for loss in ("l1", "kl"):
        student = (teacher + 1e-3 * torch.randn(8, 10, dtype=torch.float64)).requires_grad_()
        discrepancy(teacher, student, loss).backward()
        norms[loss] = student.grad.norm().item()
    assert norms["kl"] < 0.1 * norms["l1"]


# The game: one step of each player, in float64


class Bare(Distillation):
    batch_size = 16


def bare(dtype: torch.dtype = torch.float64, **module) -> Bare:
    def constant(optimizer: torch.optim.Optimizer, total_steps: int) -> None:
        return None

    sgd = partial(torch.optim.SGD, lr=0.01)
    game = Bare(DFAD(DIGITS, **SMALL), sgd, constant, sgd, constant, **module)
    game.take(Teacher(CNN(DIGITS, filters=4, dropout=0.5, normalise=True).to(dtype), accuracy=0.9))
    return game.to(dtype)


def test_a_student_that_is_the_teacher_leaves_nothing_to_find():
    game = bare()
    twin = copy.deepcopy(game.teacher.network)
    game.network.student = twin.eval().requires_grad_(True)
    gap = game.generation()
    gap.backward()
    assert gap == 0 and all((p.grad == 0).all() for p in game.generator.parameters())
    game.network.student.train()
    assert game.generation() < 0, "in train mode it has other statistics"


def test_a_step_of_the_generator_raises_and_one_of_the_student_lowers_the_discrepancy():
    game = bare()
    noise = torch.randn(16, 3, dtype=torch.float64)
    game.noise = lambda count, generator=None: noise
    for player, loss, sign in (("generator", game.generation, 1), ("student", game.imitation, -1)):
        before = game.generation().item()
        trained = list(game.parameters_of(player))
        gradients = torch.autograd.grad(loss(), trained, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= 1e-4 * gradient
        assert sign * (before - game.generation().item()) > 0, player


def test_the_gradient_flows_through_the_frozen_teacher_and_not_into_it():
    game = bare()
    game.generation().backward()
    assert all(p.grad is None for p in game.teacher.network.parameters())
    alone = game.generator.project[0].weight.grad.clone()
    game.zero_grad()
    x = game.generator(game.noise(16))
    with torch.no_grad():
        teacher = game.teacher(x)
    (-discrepancy(teacher, game.network.student.forward_normalised(x))).backward()
    assert not torch.allclose(alone, game.generator.project[0].weight.grad)
    game.zero_grad()
    game.imitation().backward()
    assert all(p.grad is None for p in game.generator.parameters())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_teacher_stays_as_it_is_whatever_is_called(mode):
    game = bare(teacher_mode=mode)
    before = {k: v.clone() for k, v in game.teacher.network.state_dict().items() if "num_batches" not in k}
    game.train()
    assert not game.teacher.network.training
    game.generation().backward()
    game.imitation().backward()
    game.train()
    assert not any(layer.training for layer in game.teacher.network.modules())
    after = game.teacher.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not [name for name in game.state_dict() if "teacher" in name]
    x = torch.randn(16, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(game.teacher(x), game.teacher(x))
    assert (game.teacher(x) != game.teacher(x, train=True)).any()


def test_the_student_is_given_the_teachers_normalisation():
    network = CNN(DIGITS, filters=4, normalise=True)
    network.learn_statistics_(torch.randint(0, 9, (20, 1, 8, 8)))
    game = bare()
    game.take(Teacher(network, None))
    assert game.network.student.mean == network.mean.double() and game.network.student.sd == network.sd.double()


# What it learns from


def test_real_images_are_drawn_with_their_labels_and_normalised():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 17, (30, 1, 8, 8), np.uint8), np.arange(30) % 10)
    mean, sd = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.2)
    x, labels = Source(split, DIGITS, DIGITS, mean, sd).draw(50)
    plain = torch.from_numpy(split.images / 16).float()
    for image, label in zip(x, labels, strict=True):
        near = ((plain - 0.3) / 0.2 - image).abs().flatten(1).max(1).values
        assert near.min() < 1e-5 and split.labels[near.argmin()] == label
    seeded = [Source(split, DIGITS, DIGITS, mean, sd).draw(5, torch.Generator().manual_seed(3))[0] for _ in range(2)]
    assert torch.equal(*seeded)


def test_other_images_become_such_as_are_wanted():
    colour, grey = ImageSpec(3, 8, 8, 256), ImageSpec(1, 4, 4, 17)
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    found = as_wanted(red, colour, grey)
    assert found.shape == (1, 1, 4, 4)
    torch.testing.assert_close(found, torch.full_like(found, 0.299))
    back = as_wanted(torch.full((2, 1, 4, 4), 16, dtype=torch.uint8), grey, colour)
    torch.testing.assert_close(back, torch.ones(2, 3, 8, 8))


def test_pictures_are_the_images_in_the_datas_range():
    network = CNN(DIGITS, filters=2, normalise=True)
    network.mean.fill_(0.5)
    network.sd.fill_(0.25)
    x = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])[:, None, None, None].expand(-1, 1, 8, 8)
    assert pictures(x, network)[:, 0, 0, 0].tolist() == [0, 4, 8, 12, 16]


# Batches without items


def test_an_epoch_is_counted_and_goes_on_in_its_middle():
    counter = Counter(5)
    seen = iter(counter)
    assert [len(next(seen)) for _ in range(3)] == [0, 0, 0] and counter.state_dict() == {"batches_done": 3}
    other = Counter(5)
    other.load_state_dict(counter.state_dict())
    assert len(list(other)) == 2 and other.state_dict() == {"batches_done": 0}
    assert len(list(other)) == len(other) == 5


def test_everything_but_the_test_is_left_out():
    from datamodules.images.digits import Digits

    data = Digits()
    data.prepare_data()
    free = DataFree(data, 7)
    assert (len(free.train_dataloader()), len(free.val_dataloader())) == (7, 1)
    images, labels = next(iter(free.test_dataloader()))
    assert images.shape == (128, 1, 8, 8) and len(labels) == 128
    assert free.spec == data.spec and free.batch_size == 64 and free.class_names == data.class_names


# Schedule


def test_milestones_are_shares_of_the_steps():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = milestones(optimizer, 10, [0.4, 0.7], 0.1), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2.0] * 4 + [0.2] * 3 + [0.02] * 3)
    with pytest.raises(ValueError, match=r"scheduler\.at is \[0\.7, 0\.4\]"):
        milestones(optimizer, 10, [0.7, 0.4], 0.1)


# What cannot be


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"student": "vgg"}, r"model\.student is vgg, but it must be one of lenet5, cnn"),
        ({"student_width": 2.5}, "of cnn it must be a whole number"),
        ({"generator": "unet"}, "must be upsample or dcgan"),
        ({"latent": 0}, r"model\.latent is 0"),
        ({"generator_width": 0}, r"model\.generator_width is 0"),
    ],
)
def test_impossible_networks_are_one_sentence(given, said):
    with pytest.raises(UsageError, match=said):
        DFAD(DIGITS, **(SMALL | given))


def test_sides_must_be_multiples_of_4():
    with pytest.raises(UsageError, match="9×8 is no multiple of 4"):
        DFAD(ImageSpec(1, 9, 8, 17, 10), **SMALL)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"student_steps": 0}, r"task\.module\.student_steps is 0"),
        ({"iterations": 0}, r"task\.module\.iterations is 0"),
        ({"loss": "l2"}, "must be one of l1, mse, kl"),
        ({"inputs": "dreams"}, "must be one of generator, frozen, noise"),
        ({"teacher_mode": "off"}, "must be one of eval, train"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_impossible_settings_are_one_sentence(given, said):
    with pytest.raises(UsageError, match=said):
        bare(**given)
