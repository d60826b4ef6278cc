"""Losses by hand, and what they are for."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.attacks import dlr, dlr_t, loss_used, margin, pgd, succeeded, zero_gradients
from lightning_modules.attacks.losses import divergence

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0]])


def test_losses_by_hand():
    y, t = torch.tensor([0]), torch.tensor([3])
    assert margin(LOGITS, y).item() == -1 and margin(LOGITS, y, t).item() == -4
    assert dlr(LOGITS, y).item() == pytest.approx(-1 / 2)
    assert dlr(LOGITS, torch.tensor([2])).item() == pytest.approx(1 / 2)
    assert dlr_t(LOGITS, y, t).item() == pytest.approx(-4 / 3)
    assert dlr(LOGITS, y, t).item() == dlr_t(LOGITS, y, t).item()
    assert dlr(torch.zeros(1, 4), y).item() == 0, "equal logits divide nothing by zero"


def test_dlr_does_not_change_with_the_logits_scale_and_place():
    logits, y = torch.randn(50, 6, dtype=torch.float64), torch.randint(6, (50,))
    torch.testing.assert_close(dlr(1000 * logits + 5, y), dlr(logits, y))
    torch.testing.assert_close(dlr_t(1000 * logits + 5, y, (y + 1) % 6), dlr_t(logits, y, (y + 1) % 6))


@pytest.mark.parametrize(
    ("classes", "targeted", "used"), [(2, False, "margin"), (3, False, "dlr"), (3, True, "margin")]
)
def test_with_too_few_classes_the_margin_takes_dlrs_place(classes, targeted, used):
    logits, y = torch.randn(20, classes), torch.randint(classes, (20,))
    aims = (y + 1) % classes if targeted else None
    assert loss_used("dlr", classes, targeted) == used
    assert torch.equal(dlr(logits, y, aims), margin(logits, y, aims)) == (used == "margin")


def test_logits_times_1000_are_broken_by_dlr_and_not_by_cross_entropy(digits):
    network, images, labels = digits
    sure = lambda x: 1000 * network(x)  # noqa: E731
    assert zero_gradients(sure, images, labels).float().mean() > 0.8
    broken = {
        loss: succeeded(sure, pgd(sure, images, labels, eps=0.15, steps=10, loss=loss, random_start=False), labels)
        for loss in ("cross_entropy", "dlr")
    }
    assert broken["dlr"].float().mean() > 0.6
    assert broken["cross_entropy"].float().mean() < 0.2


def test_divergence_is_torchs():
    clean, moved = torch.randn(7, 5), torch.randn(7, 5)
    expected = torch.nn.functional.kl_div(moved.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(divergence(moved, clean), expected)
