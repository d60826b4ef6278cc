"""What the stage measures beside its attacks to tell whether they can be believed; `sanity.py` gives the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lightning_modules import attacks
from lightning_modules.attacks.crafting import Forward
from lightning_modules.classification.robustness.suite import Settings, attack_named, pgds

SURFACES = 4  # images whose loss surfaces are drawn
ALTERED = 24  # images around which a network is altered,
SAMPLES = 100  # each by so many random points of the ball
LOSSES = ("cross_entropy", "margin")
OTHER_STARTS = 7919  # added to the seed


def still_right(
    forward: Forward, images: Tensor, labels: Tensor, items: Sequence[int], standing: Tensor, settings: Settings
) -> Tensor:
    """Which of those that stand (N,) withstand the longest attacks with twice the steps and as many other starts."""
    found = standing.clone()
    seed, twice = settings.seed + OTHER_STARTS, {"steps": 2 * settings.steps, "apgd_steps": 2 * settings.apgd_steps}
    step = settings.step if settings.step is None else settings.step / 2
    for name in longest(settings):
        if found.any():
            attack = attack_named(name, replace(settings, seed=seed, step=step, targeted=False, **twice), 0)
            numbers = torch.tensor(list(items))[found.cpu()].tolist()
            moved = attack(forward, images[found], labels[found], numbers)
            found[found.clone()] = ~attacks.succeeded(forward, moved, labels[found])
    return found


def longest(settings: Settings) -> list[str]:
    """The attacks whose convergence is asked about: APGD where it is used, else PGD on each of its losses."""
    return ["apgd_ce"] if "apgd_ce" in settings.attacks else pgds(settings)


def surfaces(forward: Forward, images: Tensor, labels: Tensor, settings: Settings) -> np.ndarray:
    """The loss around each image (N, 21, 21), ε each way; rows along the gradient's sign, columns at random."""
    how = {"eps": reach(images, settings), "seed": settings.seed}
    found = [
        attacks.loss_surface(forward, images[n : n + 1], labels[n : n + 1], item=n, **how) for n in range(len(images))
    ]
    return torch.stack(found).cpu().numpy()


def reach(images: Tensor, settings: Settings) -> float:
    """ε of every pixel; of a ball of L2 that of the corners of a cube whose half diagonal it is."""
    return settings.eps if settings.norm == "Linf" else settings.eps / images[0].numel() ** 0.5


def confidences(forward: Forward, images: Tensor, settings: Settings) -> np.ndarray:
    """The test of increasing confidence around each of these images: (losses, 3), broken by PGD, by chance, items.

    PGD has the stage's steps, one start, and each of `LOSSES`.
    """
    found, ball = [], {"eps": settings.eps, "norm": settings.norm}
    for loss in LOSSES:
        attack = partial(attacks.pgd, **ball, step=settings.step, steps=settings.steps, loss=loss)
        one = attacks.increasing_confidence(attack, forward, images, **ball, samples=SAMPLES, seed=settings.seed)
        found.append((one.attack, one.noise, one.items))
    return np.array(found, np.float64)
