"""Success by item, the worst case, intervals, and numbers as they are typed."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.attacks import (
    fgsm,
    first_success,
    in_sequence,
    parse_eps,
    pgd,
    square,
    succeeded,
    wilson,
    worst_case,
)


def test_the_worst_case_is_by_item_and_wrong_when_clean_counts():
    right = torch.tensor([True, True, True, False])
    successes = {"a": torch.tensor([1, 0, 0, 0]).bool(), "b": torch.tensor([1, 1, 0, 1]).bool()}
    assert worst_case(right, successes).tolist() == [False, False, True, False]
    assert first_success(successes) == ["a", "b", "", "b"]


def test_in_sequence_each_attack_gets_what_stands(digits):
    network, images, labels = digits.first(64)
    labels = labels.clone()
    labels[0] = (labels[0] + 1) % 10  # wrong when clean
    seen = {}

    def attack(name, function):
        def run(forward, images, labels, items):
            seen[name] = items
            return function(forward, images, labels)

        return run

    attacks = {
        "fgsm": attack("fgsm", lambda *a: fgsm(*a, eps=0.12)),
        "pgd": attack("pgd", lambda *a: pgd(*a, eps=0.12, steps=10)),
        "square": attack("square", lambda *a: square(*a, eps=0.12, queries=100)),
    }
    ends, successes = in_sequence(attacks, network, images, labels, range(1000, 1064))
    assert seen["fgsm"] == list(range(1001, 1064))
    assert seen["pgd"] == [1000 + n for n in range(1, 64) if not successes["fgsm"][n]]
    assert (sum(mark.int() for mark in successes.values()) <= 1).all()
    robust = worst_case(~succeeded(network, images, labels), successes)
    assert torch.equal(robust, ~succeeded(network, ends, labels)) and 0 < robust.sum() < 60


def test_wilsons_interval():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20)[1] == 1.0


@pytest.mark.parametrize(
    ("typed", "eps"), [("8/255", 8 / 255), ("0.031", 0.031), (0.3, 0.3), (0, 0.0), (1, 1.0), (" 8 / 255 ", 8 / 255)]
)
def test_sizes_as_they_are_typed(typed, eps):
    assert parse_eps(typed) == eps


@pytest.mark.parametrize("typed", [8, "8", "-1/255", -0.1, "nan", "inf", "1e400"])
def test_sizes_outside_are_refused(typed):
    with pytest.raises(UsageError, match=r"must be from 0 to 1.*pixels\? write 8/255"):
        parse_eps(typed)


@pytest.mark.parametrize("typed", ["eight", "8/", "8/0", "1/2/3", None, ""])
def test_what_is_no_number_is_refused(typed):
    with pytest.raises(UsageError, match="must be a number such as"):
        parse_eps(typed)


def test_a_length_may_exceed_1():
    assert parse_eps(2.5, "L2") == 2.5
    with pytest.raises(UsageError):
        parse_eps(-1, "L2")
