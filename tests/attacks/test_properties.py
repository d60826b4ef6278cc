"""Whatever shape, size and seed: inside ball and box; and draws that do not depend on the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from lightning_modules.attacks import apgd, apgd_t, cw, fgsm, noise, pgd, spatial, square
from lightning_modules.attacks.balls import distances, drawn_in_ball
from lightning_modules.attacks.draws import Draws, Source

ATTACKS = {
    "fgsm": fgsm,
    "pgd": lambda *a, **k: pgd(*a, steps=3, **k),
    "apgd": lambda *a, **k: apgd(*a, steps=6, loss="dlr", **k),
    "apgd_t": lambda *a, **k: apgd_t(*a, steps=4, classes=2, **k),
    "noise": lambda *a, **k: noise(*a, samples=2, **k),
    "square": lambda *a, norm, **k: square(*a, queries=6, **k),
}


@examples(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(ATTACKS)),
    norm=st.sampled_from(["Linf", "L2"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)),
    classes=st.integers(2, 5),
    eps=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    black_and_white=st.booleans(),
)
def test_every_attack_stays_inside_ball_and_box(name, norm, shape, classes, eps, seed, black_and_white):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator)
    images = images.round() if black_and_white else images
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), classes))
    labels = network(images).argmax(1)
    moved = ATTACKS[name](network, images, labels, eps=eps, norm=norm)
    used = "Linf" if name == "square" else norm
    assert moved.shape == images.shape and moved.dtype == images.dtype and not moved.requires_grad
    assert moved.min() >= 0 and moved.max() <= 1
    assert (distances(images, moved, used) <= eps + 1e-6).all()


def test_attacks_without_a_ball_stay_in_the_box(digits):
    network, images, labels = digits.first(8)
    for moved in (spatial(network, images, labels), cw(network, images, labels, steps=20, searches=2)):
        assert moved.min() >= 0 and moved.max() <= 1 and moved.shape == images.shape


def test_draws_are_an_items_own_alone_and_in_a_batch():
    images = torch.rand(5, 2, 3, 3)
    for norm in ("Linf", "L2"):
        together = drawn_in_ball(images, 0.1, norm, Source(5, 7, range(10, 15))(2))
        alone = drawn_in_ball(images[3:4], 0.1, norm, Source(1, 7, [13])(2))
        assert torch.equal(together[3:4], alone)
        other = drawn_in_ball(images[3:4], 0.1, norm, Source(1, 7, [13])(3))
        assert not torch.equal(alone, other), "another restart draws anew"
    kept = Draws(7, range(5)).kept(torch.tensor([False, True, False, True, False]))
    assert torch.equal(kept.uniform((4,), images), Draws(7, [1, 3]).uniform((4,), images))


@pytest.mark.parametrize("attack", [noise, lambda *a, **k: square(*a, queries=40, **k)])
def test_an_attack_by_chance_is_equal_alone_and_in_a_batch(digits, attack):
    network, images, labels = digits.first(16).double()
    together = attack(network, images, labels, eps=0.1, seed=3, items=range(100, 116))
    alone = [attack(network, images[[n]], labels[[n]], eps=0.1, seed=3, items=[100 + n]) for n in range(16)]
    assert torch.equal(torch.cat(alone), together)


def test_a_generator_wins_over_the_seed(digits):
    network, images, labels = digits.first(4)
    draw = lambda seed: noise(  # noqa: E731
        network, images, labels, eps=0.01, seed=seed, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(draw(0), draw(1))
    generator = torch.Generator().manual_seed(1)
    first, second = (noise(network, images, labels, eps=0.01, generator=generator) for _ in range(2))
    assert torch.equal(first, draw(0)) and not torch.equal(first, second)


def test_points_of_a_ball_are_uniform():
    images = torch.full((4000, 1, 1, 2), 0.5)
    for norm, mean in (("Linf", 0.5), ("L2", 2 / 3)):  # of |x₁| in a square's half, of the radius in a disc
        moved = (drawn_in_ball(images, 0.4, norm, Draws(0, range(4000))) - images) / 0.4
        found = moved[:, 0, 0, 0].abs() if norm == "Linf" else moved.flatten(1).norm(dim=1)
        assert abs(found.mean() - mean) < 0.02 and moved.mean().abs() < 0.02
