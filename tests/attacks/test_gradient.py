"""FGSM and PGD against what linear networks make known, and the fast form of PGD against its definition."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.attacks import Passes, fgsm, pgd, succeeded
from lightning_modules.attacks.balls import lengths
from lightning_modules.attacks.losses import margin
from tests.attacks.networks import linear

EPS = 0.02


def test_fgsm_breaks_two_classes_exactly_where_the_margin_is_short():
    network, weights, images, labels = linear(2, low=EPS, high=1 - EPS)
    lead = -margin(network(images), labels).detach()
    reach = EPS * (weights[0] - weights[1]).abs().sum()
    clear = (lead - reach).abs() > 1e-6
    broken = succeeded(network, fgsm(network, images, labels, eps=EPS), labels)
    assert torch.equal(broken[clear], (lead < reach)[clear])
    assert 20 < broken.sum() < 180


def test_targeted_margins_together_break_ten_classes_exactly_where_one_of_them_can():
    network, weights, images, labels = linear(10, low=EPS, high=1 - EPS)
    logits = network(images).detach()
    leads = logits.gather(1, labels[:, None]) - logits
    robust_by = leads - EPS * (weights[labels][:, None] - weights).abs().sum(2)
    robust_by.scatter_(1, labels[:, None], torch.inf)
    clear = robust_by.amin(1).abs() > 1e-6
    broken = torch.zeros(len(images), dtype=torch.bool)
    for target in range(10):
        aims = torch.full_like(labels, target)
        moved = fgsm(network, images, labels, eps=EPS, loss="margin", targets=aims)
        broken |= succeeded(network, moved, labels) & (labels != target)
    assert torch.equal(broken[clear], (robust_by.amin(1) < 0)[clear])
    untargeted = succeeded(network, fgsm(network, images, labels, eps=EPS), labels)
    assert untargeted.sum() < broken.sum(), "cross-entropy's gradient is not the best direction with ten classes"


def test_l2_pgd_lowers_a_linear_margin_by_eps_times_the_weights_length():
    network, weights, images, labels = linear(2, low=0.4, high=0.6)
    moved = pgd(network, images, labels, eps=0.3, steps=20, norm="L2", random_start=False, keep="last")
    lowered = margin(network(moved), labels) - margin(network(images), labels)
    torch.testing.assert_close(lowered, 0.3 * (weights[0] - weights[1]).norm().expand(200), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_first_successes_are_those_of_whole_runs_and_cost_fewer_passes(digits, norm, loss):
    network, images, labels = digits.first(128).double()
    way = {"eps": {"Linf": 0.12, "L2": 0.8}[norm], "steps": 10, "norm": norm, "loss": loss}
    passes = Passes(network), Passes(network)
    whole = succeeded(network, pgd(passes[0], images, labels, keep="last", **way), labels)
    first = succeeded(network, pgd(passes[1], images, labels, **way), labels)
    assert 10 < whole.sum() < 128
    assert (first | ~whole).all(), "what is broken at the end was broken at some step"
    assert first.sum() - whole.sum() <= 3
    assert passes[1].backwards < passes[0].backwards == 1280


def test_restarts_break_more_and_take_only_those_that_stand(digits):
    network, images, labels = digits
    counted = Passes(network)
    once = succeeded(network, pgd(network, images, labels, eps=0.1, steps=4), labels)
    thrice = succeeded(network, pgd(counted, images, labels, eps=0.1, steps=4, restarts=3), labels)
    assert (thrice | ~once).all() and thrice.sum() >= once.sum()
    assert counted.backwards < 3 * 4 * len(images)


def test_images_agree_whatever_the_batch(digits):
    network, images, labels = digits.first(64).double()
    way = {"eps": 0.1, "steps": 20, "keep": "last"}
    together = pgd(network, images, labels, **way)
    for start in (0, 5, 63):
        alone = pgd(network, images[start:][:5], labels[start:][:5], items=range(start, min(start + 5, 64)), **way)
        assert (alone - together[start:][:5]).abs().max() < 1e-5
    assert torch.equal(together, pgd(network, images, labels, **way)), "and to the bit in equal batches"


def test_success_agrees_in_float32_whatever_the_batch(digits):
    network, images, labels = digits.first(64)
    together = succeeded(network, pgd(network, images, labels, eps=0.1, steps=20), labels)
    alone = [
        succeeded(network, pgd(network, images[[n]], labels[[n]], eps=0.1, steps=20, items=[n]), labels[[n]])
        for n in range(64)
    ]
    assert (torch.cat(alone) != together).sum() <= 1


def test_a_target_is_reached(digits):
    network, images, labels = digits
    aims = (labels + 1) % 10
    for attack in (fgsm, pgd):
        moved = attack(network, images, labels, eps=0.5, targets=aims)
        named = network(moved).argmax(1) == aims
        assert named.float().mean() > (0.9 if attack is pgd else 0.2)
        assert torch.equal(named, succeeded(network, moved, labels, aims))


def test_without_a_step_the_start_itself_is_given_back(digits):
    network, images, labels = digits.first(8)
    moved = pgd(network, images, labels, eps=0.5, steps=0, norm="L2")
    assert (lengths(moved - images) > 0.1).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": 8}, "pixels? write 8/255"),
        ({"eps": -0.1}, "from 0 to 1"),
        ({"eps": 0.1, "norm": "L1"}, "knows Linf and L2"),
        ({"eps": 0.1, "steps": 0, "random_start": False}, "nothing would be attacked"),
        ({"eps": 0.1, "steps": -1}, "steps is -1"),
        ({"eps": 0.1, "restarts": 0}, "restarts is 0"),
        ({"eps": 0.1, "restarts": 2, "random_start": False}, "would be the same"),
        ({"eps": 0.1, "loss": "cross_entropi"}, "did you mean 'cross_entropy'?"),
        ({"eps": 0.1, "keep": "best"}, "first or last"),
    ],
)
def test_impossible_attacks_are_refused_in_one_sentence(digits, options, said):
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        pgd(digits.network, digits.images, digits.labels, **options)


def test_images_that_are_no_floats_from_0_to_1_are_refused(digits):
    for images in ((digits.images * 16).byte(), digits.images * 16, digits.images[0]):
        with pytest.raises(UsageError, match="Attacks take"):
            fgsm(digits.network, images, digits.labels, eps=0.1)
