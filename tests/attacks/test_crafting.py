"""What an attack finds it leaves: weights, statistics, gradients, modes, precision."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.attacks import Passes, apgd, crafting, cw, exact, fgsm, forward_of, pgd, square
from lightning_modules.attacks.crafting import gradient
from lightning_modules.attacks.losses import cross_entropy
from tests.attacks.networks import small_network


def state_of_torch() -> tuple:
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )


def state_of(network: torch.nn.Module) -> tuple:
    modes = [module.training for module in network.modules()]
    return modes, [(p.requires_grad, p.grad is None) for p in network.parameters()]


@pytest.mark.parametrize("attack", [fgsm, pgd, apgd, square, lambda *a, eps: cw(*a, steps=10, searches=2)])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_attack_changes_nothing_of_the_network(attack, mode, digits):
    network = small_network()
    network.train(mode == "train")
    network[1].eval()
    network[0].weight.requires_grad_(False)
    before, kept = state_of(network), {name: value.clone() for name, value in network.state_dict().items()}
    with crafting(network):
        assert not any(module.training for module in network.modules())
        attack(network, digits.images[:8], digits.labels[:8], eps=0.1)
    assert state_of(network) == before
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("fails", [False, True])
def test_inference_mode_autocast_and_precision_come_back_after_an_exception_too(fails, digits):
    network, images, labels = digits.first(8)
    seen = []

    def forward(x):
        seen.append((*state_of_torch(), x.requires_grad))
        if fails and len(seen) == 2:
            raise RuntimeError("out of memory")
        return network(x)

    torch.set_float32_matmul_precision("high")
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            before, copies = state_of_torch(), (images.clone(), labels.clone())  # tensors without gradients for ever
            if fails:
                with pytest.raises(RuntimeError, match="memory"):
                    pgd(forward, *copies, eps=0.1, steps=3)
            else:
                moved = pgd(forward, *copies, eps=0.1, steps=3)
                assert moved.dtype == torch.float32
            assert state_of_torch() == before
        assert seen[0] == (False, True, False, "highest", False, True)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_attack_in_inference_mode_is_the_same(digits):
    network, images, labels = digits.first(16)
    outside = pgd(network, images, labels, eps=0.1, steps=3)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = pgd(network, images, labels, eps=0.1, steps=3)
    assert torch.equal(inside, outside)


def test_crafting_puts_back_after_an_exception(digits):
    network = small_network().train()
    before = state_of(network), state_of_torch()
    with pytest.raises(RuntimeError), crafting(network):
        raise RuntimeError
    assert (state_of(network), state_of_torch()) == before
    with crafting(network, "train"):
        assert all(module.training for module in network.modules())
    with pytest.raises(UsageError, match="eval, train or asis"), crafting(network, "evil"):
        pass


def test_training_may_craft_in_its_own_precision():
    with torch.autocast("cpu", torch.bfloat16), crafting(small_network(), precise=False):
        assert torch.is_autocast_enabled("cpu")
        with exact():
            assert not torch.is_autocast_enabled("cpu")


def test_an_items_gradient_is_its_own(digits):
    network, images, labels = digits.first(8).double()
    together, logits, losses = gradient(network, images, labels, cross_entropy)
    alone, _, _ = gradient(network, images[2:3], labels[2:3], cross_entropy)
    torch.testing.assert_close(together[2:3], alone)
    assert logits.shape == (8, 10) and losses.shape == (8,) and not logits.requires_grad


def test_a_gradient_that_is_not_finite_moves_nothing(digits):
    images, labels = digits.images[:4], digits.labels[:4]
    moved = fgsm(lambda x: digits.network(x) * torch.nan, images, labels, eps=0.1)
    assert torch.equal(moved, images)


def test_passes_are_counted(digits):
    network, images, labels = digits.first(8)
    counted = Passes(network)
    pgd(counted, images, labels, eps=0.0, steps=5, keep="last")
    assert (counted.forwards, counted.backwards) == (40, 40)
    pgd(counted, images, labels, eps=0.0, steps=5)  # nothing breaks: one more pass tells
    assert (counted.forwards, counted.backwards) == (88, 80)


def test_forward_of_a_network_takes_images_from_0_to_1():
    seen = forward_of(lambda images: images, 17)(torch.tensor([0.0, 0.5, 1.0]))
    assert seen.tolist() == [0, 8, 16]
