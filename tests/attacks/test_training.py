"""What adversarial training trains on, its loss, and that it helps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from lightning_modules.attacks import adversarial, crafting, eps_now, pgd, succeeded, trades_loss
from lightning_modules.attacks.training import METHODS, inner_fgsm_rs, inner_trades
from tests.attacks.networks import small_network


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("method", METHODS)
def test_batches_lie_in_the_ball_follow_their_generator_and_raise_the_loss(digits, method):
    network, images, labels = digits.first(64)
    moved = adversarial(method, network, images, labels, eps=0.1, generator=seeded())
    assert not moved.requires_grad and (moved - images).abs().max() <= 0.1 + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(moved, adversarial(method, network, images, labels, eps=0.1, generator=seeded()))
    assert not torch.equal(moved, adversarial(method, network, images, labels, eps=0.1, generator=seeded(1)))
    loss = [F.cross_entropy(network(x), labels).item() for x in (images, moved)]
    assert loss[1] > 2 * loss[0]


def test_fgsm_rs_by_hand(digits):
    network, images, labels = digits.first(8)
    start = (images + (2 * torch.rand(images.shape, generator=seeded()) - 1) * 0.1).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(start), labels, reduction="sum"), start)
    by_hand = (images + (start + 0.125 * gradient.sign() - images).clamp(-0.1, 0.1)).clamp(0, 1)
    assert torch.equal(inner_fgsm_rs(network, images, labels, eps=0.1, generator=seeded()), by_hand)


def test_trades_by_hand(digits):
    network, images, labels = digits.first(8)
    moved = inner_trades(network, images, eps=0.1, generator=seeded())
    x = (images + 0.001 * torch.randn(images.shape, generator=seeded())).clamp(0, 1)
    clean = network(images).softmax(1).detach()
    for _ in range(10):
        x = x.detach().requires_grad_()
        divergence = F.kl_div(network(x).log_softmax(1), clean, reduction="sum")
        (gradient,) = torch.autograd.grad(divergence, x)
        x = (images + (x + 0.025 * gradient.sign() - images).clamp(-0.1, 0.1)).clamp(0, 1)
    assert (moved - x).abs().max() < 1e-6 or (moved != x).float().mean() < 0.02  # signs of tiny gradients
    logits = network(images).detach().requires_grad_(), network(moved).detach().requires_grad_()
    loss = trades_loss(*logits, labels, beta=6.0)
    kl = F.kl_div(logits[1].log_softmax(1), logits[0].softmax(1), reduction="batchmean")
    torch.testing.assert_close(loss, F.cross_entropy(logits[0], labels) + 6 * kl)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, logits))


def test_trades_without_a_start_is_refused(digits):
    with pytest.raises(UsageError, match="exactly 0"):
        inner_trades(digits.network, digits.images, eps=0.1, start=0.0)


def test_other_methods_and_steps_are_refused(digits):
    with pytest.raises(UsageError, match="pgd, fgsm_rs, trades or null"):
        adversarial("madry", digits.network, digits.images, digits.labels, eps=0.1)
    with pytest.raises(UsageError, match="steps is 0"):
        adversarial("pgd", digits.network, digits.images, digits.labels, eps=0.1, steps=0)
    with pytest.raises(UsageError, match="choose pgd"):
        adversarial("fgsm_rs", digits.network, digits.images, digits.labels, eps=0.1, steps=2)


def test_eps_grows_over_the_warm_up():
    assert [eps_now(0.2, part, 0.5) for part in (0, 0.25, 0.5, 1)] == [0, 0.1, 0.2, 0.2]
    assert eps_now(0.2, 0.0) == 0.2


def test_adversarial_training_helps(digits, splits):
    (images, labels), generator = splits["train"], seeded()
    torch.manual_seed(0)
    network = small_network().train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(200):
        batch = torch.randint(len(images), (64,), generator=generator)
        with crafting(network):
            moved = adversarial("fgsm_rs", network, images[batch], labels[batch], eps=0.15, generator=generator)
        assert network.training and all(p.grad is None or p.requires_grad for p in network.parameters())
        loss = F.cross_entropy(network(moved), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    way = {"eps": 0.15, "steps": 10}
    robust = [
        (~succeeded(n, pgd(n, *digits[1:], **way), digits.labels)).float().mean() for n in (digits.network, network)
    ]
    assert robust[1] > robust[0] + 0.2
