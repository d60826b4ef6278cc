"""Gradient reversal, the game of equations 13 to 15, normalisation of two domains, distances and criteria."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.image.kid import KernelInceptionDistance

from datamodules.domains.pairs import PairBatch
from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.adaptation import DANN, Adaptation, SourceOnly, TargetTrained
from lightning_modules.adaptation.bounds import with_target_statistics
from lightning_modules.adaptation.criteria import class_ami, unlabelled_criteria
from lightning_modules.adaptation.distances import kernel_distance, mean_kernel_distance, proxy_a_distance
from lightning_modules.adaptation.figures import embedded
from lightning_modules.adaptation.network import SOURCE, TARGET, DomainNorm
from lightning_modules.adaptation.reversal import domain_loss, domain_losses, reversal_strength, reverse
from lightning_modules.schedules import constant_linear, inverse

DIGITS = ImageSpec(3, 28, 28, 256, classes=10)
SMALL = ImageSpec(3, 16, 16, 256, classes=4)


def batch_of(spec: ImageSpec, items: int = 6) -> PairBatch:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * items, *spec.shape), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, spec.classes, (items,), generator=rng)
    return PairBatch(images[:items], labels, images[items:], torch.arange(items))


# Gradient reversal


@pytest.mark.parametrize(("part", "strength"), [(0.0, 0.0), (0.5, 0.98661), (1.0, 0.99991)])
def test_the_strengths_schedule(part, strength):
    assert reversal_strength(part, 10.0) == pytest.approx(strength, abs=5e-6)


def test_reversal_turns_the_features_gradient_and_leaves_the_heads():
    x, head = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), nn.Linear(3, 1).double()

    def gradients(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(head(features).square().sum(), (x, *head.parameters()))

    plain, turned = gradients(x), gradients(reverse(x, 0.3))
    assert torch.equal(reverse(x, 0.3), x) and torch.equal(turned[0], -0.3 * plain[0])
    assert all(torch.equal(one, other) for one, other in zip(plain[1:], turned[1:], strict=True))
    numerical = torch.zeros_like(x)
    for place in np.ndindex(*x.shape):  # λ once, not λ²
        moved = [x.detach().clone() for _ in range(2)]
        for sign, each in zip((1, -1), moved, strict=True):
            each[place] += sign * 1e-6
        numerical[place] = (head(moved[0]).square().sum() - head(moved[1]).square().sum()) / 2e-6
    torch.testing.assert_close(turned[0], -0.3 * numerical, atol=1e-6, rtol=1e-6)


def test_one_step_is_the_games():
    """Equations 13 and 14 with λ, 15 with λ = 1 (section 5.2.2), written as three gradients of two losses."""
    torch.manual_seed(0)
    strength, rate, items = 0.3, 0.1, 6
    features, label, domain = nn.Linear(4, 5).double(), nn.Linear(5, 3).double(), nn.Linear(5, 1).double()
    x, y = torch.randn(2 * items, 4, dtype=torch.float64), torch.randint(0, 3, (items,))

    def of_domain(z: torch.Tensor) -> torch.Tensor:
        logits = domain(z)[:, 0]
        near, far = F.softplus(logits[:items]), F.softplus(-logits[items:])  # −ln of the probability of the truth
        return near.mean() + far.mean()

    label_loss, adversary = F.cross_entropy(label(features(x))[:items], y), of_domain(features(x))
    expected = []
    for part, wanted in ((features, label_loss - strength * adversary), (label, label_loss), (domain, adversary)):
        slopes = torch.autograd.grad(wanted, list(part.parameters()), retain_graph=True)
        expected += [value - rate * slope for value, slope in zip(part.parameters(), slopes, strict=True)]
    optimizer = torch.optim.SGD([p for part in (features, label, domain) for p in part.parameters()], lr=rate)
    z = features(x)
    losses = domain_losses(domain(reverse(z, strength))[:, 0], items)
    (F.cross_entropy(label(z)[:items], y) + domain_loss(losses, items)).backward()
    optimizer.step()
    found = [p for part in (features, label, domain) for p in part.parameters()]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    losses = losses.detach()
    assert float(losses.mean()) * 2 == pytest.approx(float(domain_loss(losses, items)))


@pytest.mark.parametrize("norm", ["none", "joint", "domain"])
def test_a_training_batchs_loss_and_figures(norm):
    torch.manual_seed(0)
    network = DANN(SMALL, norm=norm)
    module = Adaptation(network, None, None)
    module.spent = 0.5
    batch = batch_of(SMALL)
    measured = module.measure(batch, "train")
    with torch.no_grad():
        features = network.features_of_both(batch.source, batch.target)
        label_loss = F.cross_entropy(network.classify(features[:6]), batch.labels)
        is_target = torch.repeat_interleave(torch.tensor([0.0, 1.0]), 6)
        losses = F.binary_cross_entropy_with_logits(network.domain_logits(features), is_target, reduction="none")
    assert measured.loss.item() == pytest.approx((label_loss + losses[:6].mean() + losses[6:].mean()).item(), rel=1e-5)
    assert measured.values["loss"].mean().item() == pytest.approx(label_loss.item(), rel=1e-5)
    assert measured.values["lambda"][0].item() == pytest.approx(reversal_strength(0.5, 10))
    right = (network.domain_logits(features) > 0) == is_target.bool()
    assert torch.equal(measured.values["domain_accuracy"], right)
    measured.loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# Networks


def test_parameters_are_the_papers():
    def count(*names: str) -> int:
        return sum(p.numel() for name, p in DANN(DIGITS).named_parameters() if name.startswith(names))

    assert (count("conv"), count("label"), count("domain")) == (40_880, 88_010, 77_001)
    assert count("") == 205_891
    assert sum(p.numel() for p in SourceOnly(DIGITS).parameters()) == 128_890
    with torch.no_grad():
        assert DANN(DIGITS).features(torch.zeros(1, 3, 28, 28, dtype=torch.uint8)).shape == (1, 768)


def test_each_domains_statistics_are_its_own():
    torch.manual_seed(0)
    norm, x, expected = DomainNorm(3, sets=2), [torch.randn(8, 3, 4, 4) + 2 for _ in range(5)], torch.zeros(2, 3)
    spread = torch.ones(2, 3)
    for number, batch in enumerate(x):
        domain = number % 2
        other = [buffer[1 - domain].clone() for buffer in (norm.running_mean, norm.running_var)]
        found = norm(batch, domain)
        torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        expected[domain] = 0.9 * expected[domain] + 0.1 * batch.mean((0, 2, 3))
        spread[domain] = 0.9 * spread[domain] + 0.1 * batch.transpose(0, 1).flatten(1).var(1)
        torch.testing.assert_close(norm.running_mean[domain], expected[domain])
        torch.testing.assert_close(norm.running_var[domain], spread[domain])
        assert torch.equal(norm.running_mean[1 - domain], other[0])
        assert torch.equal(norm.running_var[1 - domain], other[1])
    norm.eval()
    for domain in (SOURCE, TARGET):
        wanted = (x[0] - norm.running_mean[domain][:, None, None]) / (
            norm.running_var[domain][:, None, None] + 1e-5
        ).sqrt()
        torch.testing.assert_close(norm(x[0], domain), wanted, atol=1e-5, rtol=1e-5)


def test_the_image_chooses_the_statistics_where_the_network_has_none_of_its_own():
    batch = batch_of(SMALL)
    for kind, same in ((DANN, False), (SourceOnly, True), (TargetTrained, True)):
        network = kind(SMALL, norm="domain")
        network.train()
        with torch.no_grad():
            for domain, images in ((SOURCE, batch.source), (TARGET, batch.target // 4)):
                network(images, domain)
        network.eval()
        with torch.no_grad():
            assert torch.equal(network(batch.source, SOURCE), network(batch.source, TARGET)) == same
        own = {SourceOnly: SOURCE, TargetTrained: TARGET}.get(kind)
        if own is not None:
            assert (network.norm1.running_mean[1 - own] == 0).all() and (network.norm1.running_mean[own] != 0).any()


def test_adabn_has_the_targets_statistics_and_the_sources_weights():
    torch.manual_seed(0)
    network, images = SourceOnly(SMALL, norm="joint").eval(), batch_of(SMALL, 40).target.numpy()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = with_target_statistics(network, images, "cpu", batch=20)
    with torch.no_grad():
        x = network.conv1(2 * network.scaled(torch.from_numpy(images)) - 1)
    means = torch.stack([x[:20].mean((0, 2, 3)), x[20:].mean((0, 2, 3))]).mean(0)
    torch.testing.assert_close(found.norm1.running_mean[0], means, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "a copy"
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), found.parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DANN(SMALL, norm="domains"), r"model.norm is 'domains' \(did you mean 'domain'\?\)"),
        (lambda: DANN(ImageSpec(3, 15, 28, 256, 10)), "need images of at least 16×16, and these are 15×28"),
        (lambda: DANN(ImageSpec(3, 28, 28, 256)), "no classes to tell apart"),
        (lambda: DANN(SMALL, dropout=1.0), "model.dropout is 1.0"),
        (lambda: Adaptation(DANN(SMALL), None, None, gamma=-1.0), "task.module.gamma is -1.0"),
        (lambda: Adaptation(DANN(SMALL), None, None, embedded_items=3), "task.module.embedded_items is 3"),
        (lambda: DANN(SMALL)(torch.zeros(1, 1, 16, 16, dtype=torch.uint8)), "The images are grey of 16×16"),
    ],
)
def test_what_cannot_be_is_said(make, said):
    with pytest.raises(UsageError, match=said):
        make()


# Schedules


def test_the_rates_schedules():
    def rates(schedule: object, **how: float) -> list[float]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
        made, found = schedule(optimizer, total_steps=10, **how), []
        for _ in range(11):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            made.step()
        return found

    assert rates(inverse, alpha=10, beta=0.75) == pytest.approx([0.01 / (1 + step) ** 0.75 for step in range(11)])
    assert rates(constant_linear, level=0.5) == pytest.approx([0.01] * 6 + [0.008, 0.006, 0.004, 0.002, 0])
    for schedule, how in ((inverse, {"alpha": -1, "beta": 1}), (constant_linear, {"level": 1.0})):
        with pytest.raises(ValueError, match=r"scheduler\."):
            rates(schedule, **how)


# Distances and criteria


def test_the_kernel_distance_equals_a_double_loop_and_torchmetrics():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)) + 1

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 4 + 1) ** 3

    within = [sum(k(a, b) for a in z for b in z if a is not b) / (len(z) * (len(z) - 1)) for z in map(list, (x, y))]
    across = sum(k(a, b) for a in x for b in y) / 30
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across, abs=1e-10)
    assert kernel_distance(x, y) == pytest.approx(kernel_distance(y, x), abs=1e-12)
    given = [torch.from_numpy(values[:5]) for values in (x, y)]
    theirs = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=5)
    for values, real in zip(given, (True, False), strict=True):
        theirs.update(values.float()[:, :, None, None], real=real)
    assert float(theirs.compute()[0]) == pytest.approx(kernel_distance(x[:5], y), rel=1e-4)


class Flat(nn.Module):
    """Features that are the numbers themselves."""

    num_features = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def test_halves_of_one_set_have_no_distance():
    rng = np.random.default_rng(0)
    found = [kernel_distance(*rng.normal(size=(2, 40, 5))) for _ in range(60)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(60)
    apart, alike = rng.normal(size=(200, 5)) + 2, rng.normal(size=(2, 200, 5))
    assert mean_kernel_distance(apart, alike[0], size=50) > 10 * abs(mean_kernel_distance(*alike, size=50))
    assert proxy_a_distance(apart + 3, alike[0]) == 2 and abs(proxy_a_distance(*alike)) < 0.4


def test_criteria_of_certain_and_of_blind_classifiers():
    sure = np.eye(4)[np.arange(40) % 4]
    features = sure * 5 + np.random.default_rng(0).normal(size=(40, 4)) * 0.1
    found = unlabelled_criteria(sure, features)
    assert found["entropy"] == pytest.approx(0) and found["information_maximisation"] == pytest.approx(math.log(4))
    assert found["bnm"] == pytest.approx(math.sqrt(4 / 40)) and found["class_ami"] == pytest.approx(1)
    blind = unlabelled_criteria(np.full((40, 4), 0.25), features)
    assert blind["entropy"] == pytest.approx(math.log(4)) and blind["information_maximisation"] == pytest.approx(0)
    assert blind["bnm"] < found["bnm"] and class_ami(features, np.zeros(40, int), 4) == pytest.approx(0)


def test_the_same_seed_gives_the_same_picture():
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_array_equal(embedded(features), embedded(features))
