"""APGD against a transcription of its paper's algorithm, item by item."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.attacks import Passes, apgd, apgd_t, pgd, succeeded
from lightning_modules.attacks.auto_pgd import checkpoints
from lightning_modules.attacks.balls import projected
from lightning_modules.attacks.losses import LOSSES


def test_checkpoints_are_the_papers():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10, 10]


def algorithm_1(network, image: Tensor, label: Tensor, eps: float, norm: str, loss: str, steps: int) -> Tensor:
    """Croce & Hein 2020, algorithm 1, for one image (1, C, H, W), from the image itself: the point of largest loss."""

    def f(x: Tensor) -> float:
        return LOSSES[loss](network(x), label).item()

    def ascent(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(LOSSES[loss](network(x), label).sum(), x)
        return g.sign() if norm == "Linf" else g / g.norm()

    def p(x: Tensor) -> Tensor:
        return projected(x, image, eps, norm)

    w, eta, rho, alpha = checkpoints(steps), 2 * eps, 0.75, 0.75
    xs, values = [image], [f(image)]
    best, f_max, j, raised = image, values[0], 1, 0
    eta_then, f_max_then = eta, f_max
    for k in range(steps):
        z = p(xs[-1] + eta * ascent(xs[-1]))
        new = z if k == 0 else p(xs[-1] + alpha * (z - xs[-1]) + (1 - alpha) * (xs[-1] - xs[-2]))
        xs.append(new)
        values.append(f(new))
        raised += values[-1] > values[-2]
        if values[-1] > f_max:
            best, f_max = new, values[-1]
        if k + 1 == w[j]:
            fewer, same = raised < rho * (w[j] - w[j - 1]), (eta, f_max) == (eta_then, f_max_then)
            eta_then, f_max_then = eta, f_max
            if fewer or same:
                eta, xs[-1], values[-1] = eta / 2, best, f_max
            j, raised = min(j + 1, len(w) - 1), 0
    return best


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_it_is_the_papers_algorithm_on_every_item(digits, norm, loss):
    network, images, labels = digits.first(6).double()
    eps = {"Linf": 0.03, "L2": 0.1}[norm]  # breaks none: each goes all the way
    together = apgd(network, images, labels, eps=eps, norm=norm, loss=loss, steps=50, random_start=False)
    assert not succeeded(network, together, labels).any()
    for n in range(6):
        alone = algorithm_1(network, images[[n]], labels[[n]], eps, norm, loss, 50)
        torch.testing.assert_close(together[[n]], alone, rtol=0, atol=1e-8)


@pytest.mark.parametrize("attack", [apgd, lambda *a, **k: apgd_t(*a, classes=3, **k)])
def test_leaving_the_batch_changes_no_image(digits, attack):
    network, images, labels = digits.first(96).double()
    passes = Passes(network), Passes(network)
    whole = attack(passes[0], images, labels, eps=0.12, steps=30, compact=False)
    short = attack(passes[1], images, labels, eps=0.12, steps=30)
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-8)
    assert 20 < succeeded(network, short, labels).sum() < 96
    assert passes[1].forwards < passes[0].forwards


def test_it_breaks_what_pgd_does_with_as_many_steps(digits):
    network, images, labels = digits
    way = {"eps": 0.1, "steps": 20}
    broken = [
        succeeded(network, attack(network, images, labels, **way), labels).sum() for attack in (pgd, apgd, apgd_t)
    ]
    assert broken[1] >= broken[0] - 2 and broken[2] >= broken[0] - 2


def test_targets_are_the_classes_that_come_next(digits):
    network, images, labels = digits.first(64)
    one = succeeded(network, apgd_t(network, images, labels, eps=0.1, steps=10, classes=1), labels)
    nine = succeeded(network, apgd_t(network, images, labels, eps=0.1, steps=10), labels)
    assert (nine | ~one).all() and nine.sum() >= one.sum() > 0
    aims = network(images).topk(2).indices[:, 1]
    moved = apgd(network, images, labels, eps=0.5, steps=10, targets=aims)
    assert (network(moved).argmax(1) == aims).float().mean() > 0.9


@pytest.mark.parametrize("options", [{"eps": 2}, {"eps": 0.1, "steps": 0}, {"eps": 0.1, "norm": "linf"}])
def test_impossible_attacks_are_refused(digits, options):
    for attack in (apgd, apgd_t):
        with pytest.raises(UsageError):
            attack(digits.network, digits.images, digits.labels, **options)
    with pytest.raises(UsageError, match="would be the same"):
        apgd(digits.network, digits.images, digits.labels, eps=0.1, restarts=2, random_start=False)
