"""APGD: PGD that chooses its own step, and its targeted form.

Source: Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks" (arXiv 2003.01690), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.attacks.amounts import parse_eps, require_at_least, require_images, require_norm
from lightning_modules.attacks.balls import direction, drawn_in_ball, finished, per_item, projected
from lightning_modules.attacks.crafting import Forward, copied, crafted, gradient
from lightning_modules.attacks.draws import Source
from lightning_modules.attacks.judging import broken, kept, predicted
from lightning_modules.attacks.losses import Loss, loss_named

MOMENTUM, RAISING = 0.75, 0.75  # the paper's α and ρ

Judge = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits, labels, targets → success (N,)


@crafted
def apgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "Linf",
    restarts: int = 1,
    random_start: bool = True,
    loss: str | Loss = "cross_entropy",
    targets: Tensor | None = None,
    compact: bool = True,
    seed: int = 0,
    items: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Steps of 2ε with momentum, halved at checkpoints where they no longer raise the loss, then from the best point.

    Any success on the way counts and ends the item; without one its point of largest loss is given back.

    Args:
        forward, images, labels, eps, norm, loss, targets: as in `fgsm`; the paper's losses are `cross_entropy`, `dlr`.
        restarts, random_start, seed, items, generator: as in `pgd`.
        steps: of each restart, one pass each and one for the start.
        compact: broken items leave the batch.

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    _require(images, labels, eps, norm, steps, restarts)
    if not random_start and restarts > 1:
        raise UsageError(f"restarts is {restarts}, but without a random start each would be the same: choose 1.")
    images, labels, targets = copied(images, labels, targets)
    source, loss = Source(len(images), seed, items, generator), loss_named(loss)
    found, standing = images.clone(), torch.arange(len(images), device=images.device)
    for restart in range(restarts):
        here, to, aims = kept(standing, images, labels, targets)
        start = drawn_in_ball(here, eps, norm, source(restart, standing)) if random_start else here
        climb = Climb(forward, eps, steps, norm, loss, broken, compact)
        found[standing], won = climb(start, here, to, aims)
        standing = standing[~won]
        if not len(standing):
            break
    return finished(found, images, eps, norm)


@crafted
def apgd_t(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "Linf",
    classes: int = 9,
    loss: str | Loss = "dlr",
    compact: bool = True,
    seed: int = 0,
    items: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """APGD at each of the min(classes, K − 1) classes with the largest clean logits after y, one after the other.

    Any wrong class counts as success. The loss is the targeted `dlr`; with K < 4 the margin takes its place.

    Args:
        forward, images, labels, eps, norm: as in `fgsm`.
        steps, compact: as in `apgd`, for each target.
        classes: how many targets.
        seed, items, generator: as in `pgd`; target n takes restart n's draws.

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    _require(images, labels, eps, norm, steps, classes)
    images, labels = copied(images, labels)
    source, loss = Source(len(images), seed, items, generator), loss_named(loss)
    clean = predicted(forward, images).scatter(1, labels[:, None], -torch.inf)
    ranked = clean.argsort(1, descending=True)[:, : min(classes, clean.shape[1] - 1)]
    found, standing = images.clone(), torch.arange(len(images), device=images.device)
    for number in range(ranked.shape[1]):
        here, to, aims = kept(standing, images, labels, ranked[:, number])
        start = drawn_in_ball(here, eps, norm, source(number, standing))
        climb = Climb(forward, eps, steps, norm, loss, lambda logits, labels, _: broken(logits, labels), compact)
        found[standing], won = climb(start, here, to, aims)
        standing = standing[~won]
        if not len(standing):
            break
    return finished(found, images, eps, norm)


def checkpoints(steps: int) -> list[int]:
    """w_j = ⌈p_j · steps⌉ with p₀ = 0, p₁ = .22, p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06), p_j ≤ 1."""
    parts = [0.0, 0.22]
    while (following := parts[-1] + max(parts[-1] - parts[-2] - 0.03, 0.06)) <= 1:
        parts.append(following)
    return [math.ceil(round(part * steps, 9)) for part in parts]  # .57 · 100 is 57, not a little more


@dataclass
class Points:
    """What APGD knows of each item still in the batch; all (N, …)."""

    item: Tensor  # its place in the batch that was given
    images: Tensor
    labels: Tensor
    targets: Tensor | None
    x: Tensor
    before: Tensor  # the point before x
    gradient: Tensor  # at x
    loss: Tensor  # at x
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    raised: Tensor  # steps since the last checkpoint that raised the loss
    step_then: Tensor  # at the last checkpoint, before it decided
    best_loss_then: Tensor

    def keep(self, which: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, kept(which, getattr(self, field.name))[0])


@dataclass(frozen=True)
class Climb:
    """Algorithm 1 of the paper, on every item at once."""

    forward: Forward
    eps: float
    steps: int
    norm: str
    loss: Loss
    judge: Judge
    compact: bool

    def __call__(self, start: Tensor, images: Tensor, labels: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where each item ends, and which succeeded (N,)."""
        ends, won = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
        found, logits, losses = gradient(self.forward, start, labels, self.loss, targets)
        points = self.begin(start, images, labels, targets, found, losses)
        self.mark(points, logits, ends, won)
        marks = checkpoints(self.steps)
        for k in range(self.steps):
            if won.all():
                return ends, won
            self.move(points, plain=k == 0)
            points.gradient, logits, losses = gradient(self.forward, points.x, points.labels, self.loss, points.targets)
            self.remember(points, losses)
            self.mark(points, logits, ends, won)
            if k + 1 in marks:
                self.decide(points, k + 1 - marks[marks.index(k + 1) - 1])
        failed = ~won[points.item]
        ends[points.item[failed]] = points.best[failed]
        return ends, won

    def begin(
        self, x: Tensor, images: Tensor, labels: Tensor, targets: Tensor | None, gradient: Tensor, loss: Tensor
    ) -> Points:
        item, step = torch.arange(len(x), device=x.device), torch.full_like(loss, 2 * self.eps)
        raised = torch.zeros_like(item)
        best = (x, gradient, loss)
        return Points(item, images, labels, targets, x, x, gradient, loss, *best, step, raised, step, loss)

    def move(self, points: Points, plain: bool) -> None:
        """x ← P(x + α (z − x) + (1 − α)(x − before)), z = P(x + step · direction); the first step goes to z itself."""
        x, step = points.x, per_item(points.step, points.x)
        z = projected(x + step * direction(points.gradient, self.norm), points.images, self.eps, self.norm)
        if not plain:
            moved = x + MOMENTUM * (z - x) + (1 - MOMENTUM) * (x - points.before)
            z = projected(moved, points.images, self.eps, self.norm)
        points.before, points.x = x, z

    def remember(self, points: Points, loss: Tensor) -> None:
        points.raised = points.raised + (loss > points.loss)
        points.loss = loss
        better = loss > points.best_loss
        wide = per_item(better, points.x)
        points.best = torch.where(wide, points.x, points.best)
        points.best_gradient = torch.where(wide, points.gradient, points.best_gradient)
        points.best_loss = torch.where(better, loss, points.best_loss)

    def mark(self, points: Points, logits: Tensor, ends: Tensor, won: Tensor) -> None:
        """Keeps each item's first success; those leave the batch."""
        hit = self.judge(logits, points.labels, points.targets)
        new = hit & ~won[points.item]
        if new.any():
            ends[points.item[new]], won[points.item[new]] = points.x[new], True
            if self.compact:
                points.keep(~hit)

    def decide(self, points: Points, steps: int) -> None:
        """At a checkpoint: halve the step and go back to the best point, where one of the two conditions holds."""
        too_few = points.raised < RAISING * steps
        stuck = (points.step == points.step_then) & (points.best_loss == points.best_loss_then)
        halved = too_few | stuck
        points.step_then, points.best_loss_then = points.step, points.best_loss
        points.step = torch.where(halved, points.step / 2, points.step)
        wide = per_item(halved, points.x)
        points.x = torch.where(wide, points.best, points.x)
        points.gradient = torch.where(wide, points.best_gradient, points.gradient)
        points.loss = torch.where(halved, points.best_loss, points.loss)
        points.raised = torch.zeros_like(points.raised)


def _require(images: Tensor, labels: Tensor, eps: float, norm: str, steps: int, times: int) -> None:
    require_norm(norm, attack="APGD")
    parse_eps(eps, norm)
    require_at_least(1, steps=steps, restarts=times)
    require_images(images, labels)
