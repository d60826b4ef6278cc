"""FGSM and PGD: steps along the gradient inside a ball.

Sources: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples" (arXiv 1412.6572), section 4; Madry et
al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083), section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.attacks.amounts import parse_eps, require_at_least, require_images, require_norm
from lightning_modules.attacks.balls import direction, drawn_in_ball, finished, projected
from lightning_modules.attacks.crafting import Forward, copied, crafted, gradient
from lightning_modules.attacks.draws import Source
from lightning_modules.attacks.judging import broken, kept, predicted
from lightning_modules.attacks.losses import Loss, loss_named


@crafted
def fgsm(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "Linf",
    loss: str | Loss = "cross_entropy",
    targets: Tensor | None = None,
) -> Tensor:
    """One step of length ε from the image: x + ε · sign ∇ loss, clamped to [0, 1]; in L2 along the unit gradient.

    Args:
        forward: float images in [0, 1] (N, C, H, W) → logits (N, K).
        images: the originals.
        labels: (N,); may be the network's own predictions.
        eps: the ball's radius in intensities 0 … 1 (8/255 of a byte: 8 / 255).
        norm: `Linf` or `L2`.
        loss: `cross_entropy`, `margin`, `dlr`, or a function (logits, labels, targets) → (N,) to be raised.
        targets: classes (N,) to be named instead of any wrong one.

    Returns:
        The adversarial images (N, C, H, W).

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    _require(images, labels, eps, norm, "FGSM")
    images, labels, targets = copied(images, labels, targets)
    moved = ascend(forward, images, images, labels, eps, eps, 1, norm, loss_named(loss), targets)
    return finished(moved, images, eps, norm)


@crafted
def pgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step: float | None = None,
    steps: int = 40,
    norm: str = "Linf",
    restarts: int = 1,
    random_start: bool = True,
    loss: str | Loss = "cross_entropy",
    targets: Tensor | None = None,
    keep: str = "first",
    order: str = "ball_box",
    seed: int = 0,
    items: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Steps along the gradient's sign (L2: its unit vector), after each back into ball and box.

    Args:
        forward, images, labels, eps, norm, loss, targets: as in `fgsm`.
        step: length of a step; None: 2.5 ε / steps.
        steps: in each restart.
        restarts: each from a start of its own.
        random_start: uniform in the ball; False: the image itself.
        keep: `first`: an item keeps its first success, on the way too, and leaves the batch, so that later steps are
            shorter; `last`: all steps of all items, the end of the last restart that succeeded, as ART keeps it
            (without success the end of the first).
        order: of the projections, `ball_box` (foolbox's) or `box_ball` (ART's).
        seed, items: the starts are drawn from (seed, the item's number in its split, the restart), so that they do not
            depend on the batch; items None: 0 … N − 1.
        generator: wins over `seed`, which is then drawn from it.

    Raises:
        UsageError: a number, the norm or the images are impossible; no step from no start.
    """
    _require(images, labels, eps, norm, "PGD")
    _require_way(steps, restarts, random_start, keep, order)
    step = 2.5 * eps / max(steps, 1) if step is None else step
    images, labels, targets = copied(images, labels, targets)
    source, loss = Source(len(images), seed, items, generator), loss_named(loss)
    way = (eps, step, steps, norm, loss)

    found, standing = images.clone(), torch.arange(len(images), device=images.device)
    for restart in range(restarts):
        here, to, aims = kept(standing, images, labels, targets)
        start = drawn_in_ball(here, eps, norm, source(restart, standing)) if random_start else here
        if keep == "first":
            found[standing], won = ascend_until_broken(forward, start, here, to, *way, aims, order)
            standing = standing[~won]
            if not len(standing):
                break
        else:
            moved = ascend(forward, start, here, to, *way, aims, order)
            won = broken(predicted(forward, moved), to, aims) if restart else slice(None)
            found[won] = moved[won]
    return finished(found, images, eps, norm)


def ascend(
    forward: Forward,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    eps: float,
    step: float,
    steps: int,
    norm: str,
    loss: Loss,
    targets: Tensor | None = None,
    order: str = "ball_box",
) -> Tensor:
    """The definition: `steps` steps of every item from `start`, in the ball around `images`."""
    moved = start
    for _ in range(steps):
        found, _, _ = gradient(forward, moved, labels, loss, targets)
        moved = projected(moved + step * direction(found, norm), images, eps, norm, order)
    return moved


def ascend_until_broken(
    forward: Forward,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    eps: float,
    step: float,
    steps: int,
    norm: str,
    loss: Loss,
    targets: Tensor | None = None,
    order: str = "ball_box",
) -> tuple[Tensor, Tensor]:
    """`ascend`, where an item stops at its first success and leaves the batch: images, and which succeeded (N,).

    The logits of the pass that gives the gradient tell the success, so that only the last point costs one more pass.
    """
    ends, won = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
    active, moved = torch.arange(len(start), device=start.device), start
    for _ in range(steps):
        found, logits, _ = gradient(forward, moved, labels, loss, targets)
        hit = broken(logits, labels, targets)
        if hit.any():
            ends[active[hit]], won[active[hit]] = moved[hit], True
            active, moved, found, images, labels, targets = kept(~hit, active, moved, found, images, labels, targets)
            if not len(active):
                return ends, won
        moved = projected(moved + step * direction(found, norm), images, eps, norm, order)
    ends[active], won[active] = moved, broken(predicted(forward, moved), labels, targets)
    return ends, won


def _require(images: Tensor, labels: Tensor, eps: float, norm: str, attack: str) -> None:
    require_norm(norm, attack=attack)
    parse_eps(eps, norm)
    require_images(images, labels)


def _require_way(steps: int, restarts: int, random_start: bool, keep: str, order: str) -> None:
    require_at_least(0, steps=steps)
    require_at_least(1, restarts=restarts)
    if not random_start and not steps:
        raise UsageError("steps is 0 and there is no random start: nothing would be attacked.")
    if not random_start and restarts > 1:
        raise UsageError(f"restarts is {restarts}, but without a random start each would be the same: choose 1.")
    if keep not in ("first", "last") or order not in ("ball_box", "box_ball"):
        raise UsageError(f"keep={keep}, order={order}: choose first or last, ball_box or box_ball.")
