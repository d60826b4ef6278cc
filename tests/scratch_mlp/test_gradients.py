"""The hand-written passes against autograd and finite differences; that autograd has no part in them."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.scratch_mlp import ScratchMLP
from lightning_modules.scratch_mlp.updates import descend

SPEC = ImageSpec(2, 3, 5, levels=17, classes=4)
L2 = 0.3


def network(hidden=(7, 6), **options) -> ScratchMLP:
    found = ScratchMLP(SPEC, hidden=hidden, **options).double()
    with torch.no_grad():
        for bias in found.biases:  # zeros would hide a mistake
            bias.normal_()
    return found


def batch(items: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 17, (items, *SPEC.shape), dtype=torch.uint8), torch.randint(0, 4, (items,))


def loss_by_autograd(net: ScratchMLP, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same function in torch's own words."""
    x = images.flatten(1).double() / 16
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        x = F.linear(x, weight.T, bias)
        x = x.relu() if layer < len(net.weights) - 1 else x
    return F.cross_entropy(x, labels) + L2 / 2 * sum(weight.square().sum() for weight in net.weights)


@pytest.mark.parametrize("hidden", [(7, 6), (), (1,), (9, 3, 5)])
@pytest.mark.parametrize("items", [1, 6])
def test_gradients_equal_autograds(hidden, items):
    net, (images, labels) = network(hidden), batch(items)
    ours = net.gradients(net.activations(images), labels, L2)
    theirs = torch.autograd.grad(loss_by_autograd(net, images, labels), list(net.parameters()))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences():
    net, (images, labels) = network(), batch(5)
    ours, step = net.gradients(net.activations(images), labels, L2), 1e-5

    def loss() -> float:
        penalty = sum(weight.detach().square().sum() for weight in net.weights)
        return (F.cross_entropy(net(images), labels) + L2 / 2 * penalty).item()

    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), ours, strict=True):
            for place in range(parameter.numel()):
                flat = parameter.view(-1)
                before = flat[place].item()
                flat[place] = before + step
                above = loss()
                flat[place] = before - step
                below = loss()
                flat[place] = before
                assert gradient.view(-1)[place].item() == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_no_graph_is_built():
    """With gradients enabled and parameters that require them, an update saves nothing for a backward pass."""
    net, (images, labels) = network(), batch(5)
    assert torch.is_grad_enabled() and all(parameter.requires_grad for parameter in net.parameters())

    def refuse(tensor):
        raise AssertionError("autograd kept a tensor")

    with saved_tensors_hooks(refuse, refuse):
        with pytest.raises(AssertionError, match="autograd kept"):
            loss_by_autograd(net, images, labels)
        logits = descend(net, images, labels, torch.optim.SGD(net.parameters(), lr=0.1), L2)
    for tensor in (logits, *net.activations(images), *(parameter.grad for parameter in net.parameters())):
        assert tensor.grad_fn is None and not tensor.requires_grad


def test_an_update_is_gradient_descents():
    net, (images, labels) = network(), batch(5)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    gradients = net.gradients(net.activations(images), labels, L2)
    descend(net, images, labels, torch.optim.SGD(net.parameters(), lr=0.25), L2)
    for old, parameter, gradient in zip(before, net.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.25 * gradient)


@pytest.mark.parametrize(
    ("name", "deviations"),
    [("random", (0.01, 0.01, 0.01)), ("xavier", (0.0468, 0.1021, 0.1644)), ("he", (0.0505, 0.125, 0.1768))],
)
def test_initialisations_have_their_spread(name, deviations):
    net = ScratchMLP(ImageSpec(1, 28, 28, 256, 10), initialisation=name)
    assert sum(parameter.numel() for parameter in net.parameters()) == 109_386
    for weight, deviation in zip(net.weights, deviations, strict=True):
        assert weight.std().item() == pytest.approx(deviation, rel=0.1) and abs(weight.mean()) < deviation / 5
    assert all((bias == 0).all() for bias in net.biases)


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match=r"did you mean 'xavier'"):
        ScratchMLP(SPEC, initialisation="xavie")
    with pytest.raises(UsageError, match=r"model.hidden is \[5, 0\]"):
        ScratchMLP(SPEC, hidden=[5, 0])
    with pytest.raises(UsageError, match=r"no classes.*data.binarize=none"):
        ScratchMLP(ImageSpec(1, 28, 28, 2))
    with pytest.raises(UsageError, match="models images"):
        ScratchMLP(TextSpec("abc"))
