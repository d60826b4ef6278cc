"""CW-L2: the nearest adversarial image, by gradient descent and a search over the trade-off c.

Source: Carlini & Wagner 2017, "Towards Evaluating the Robustness of Neural Networks" (arXiv 1608.04644), sections V
and VI.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.attacks.amounts import require_at_least, require_images
from lightning_modules.attacks.balls import finished, lengths, per_item
from lightning_modules.attacks.crafting import Forward, copied, crafted
from lightning_modules.attacks.judging import broken, kept, predicted
from lightning_modules.attacks.losses import at, best_other

INSIDE = 0.999999  # artanh of ±1 is infinite
BETAS, SMALL = (0.9, 0.999), 1e-8  # Adam's
PROGRESS = 0.9999  # an item goes on while its loss falls below this part of what it was at the last look
LOOK = 50  # steps at most from one look to the next
FIRST = 0.2  # part of the steps that every item makes: black and white pixels move late, where tanh is flat


@crafted
def cw(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    confidence: float = 0.0,
    targets: Tensor | None = None,
    searches: int = 9,
    steps: int = 1000,
    lr: float = 1e-2,
    first_c: float = 1e-2,
    early_stop: bool = True,
) -> Tensor:
    """Minimises ‖x′ − x‖² + c · max(z_y − max_{i≠y} z_i + κ, 0) over w with x′ = (tanh(w) + 1)/2, for several c.

    A search starts Adam anew from the image. Where it found an adversarial image, c is the upper end of what is
    searched next, else the lower; the next c is 10 c while there is no upper end, else the middle. Every adversarial
    image on the way counts, the nearest is kept. Deterministic.

    Args:
        forward, images, labels: as in `fgsm`.
        confidence: κ, by which the wrong class's logit must lead.
        targets: classes (N,): then z_t must lead all others by κ.
        searches: values of c tried.
        steps: at most, for each c.
        lr: Adam's.
        first_c: the first c.
        early_stop: an item's search ends when its loss stops falling; the paper's code ends a batch's.

    Returns:
        The nearest adversarial images (N, C, H, W); where none was found, the originals.

    Raises:
        UsageError: a number or the images are impossible.
    """
    require_at_least(1, searches=searches, steps=steps)
    for name, value in {"lr": lr, "first_c": first_c}.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{name} is {value}, but it must be above 0.")
    if not 0 <= confidence < math.inf:
        raise UsageError(f"confidence is {confidence}, but it must be 0 or more.")
    require_images(images, labels)
    x, y, aims = copied(images, labels, targets)
    best, nearest = x.clone(), torch.full_like(x[:, 0, 0, 0], torch.inf)
    c, lower, upper = torch.full_like(nearest, first_c), torch.zeros_like(nearest), nearest.clone()
    for _ in range(searches):
        ends, ways = descend(forward, x, y, aims, c, confidence, steps, lr, early_stop)
        closer = ways < nearest
        best[closer], nearest[closer] = ends[closer], ways[closer]
        found = ways < torch.inf
        upper, lower = torch.where(found, c, upper), torch.where(found, lower, c)
        c = torch.where(upper < torch.inf, (lower + upper) / 2, 10 * c)
    return finished(confirmed(forward, best, x, y, aims, confidence), images, math.inf, "L2")


def confirmed(
    forward: Forward, found: Tensor, images: Tensor, labels: Tensor, targets: Tensor | None, confidence: float
) -> Tensor:
    """What still succeeds in a pass over all items, which is the evaluation's; the originals of the others.

    The nearest image lies on the boundary, and another batch's last bits may put it back over: it is then moved away
    from the original by a part in 100,000, 10,000 or 1,000 of its distance.
    """
    difference = found - images
    won = misnamed(predicted(forward, found), labels, targets, confidence)
    for further in (1e-5, 1e-4, 1e-3):
        if won.all():
            break
        found = torch.where(per_item(won, found), found, (images + (1 + further) * difference).clamp(0, 1))
        won = misnamed(predicted(forward, found), labels, targets, confidence)
    return torch.where(per_item(won, found), found, images)


def misnamed(logits: Tensor, labels: Tensor, targets: Tensor | None, confidence: float) -> Tensor:
    """Does a wrong class lead the label, or the target all others, by the confidence? (N,)"""
    if confidence:
        favoured, bonus = (labels, confidence) if targets is None else (targets, -confidence)
        logits = logits.scatter_add(1, favoured[:, None], torch.full_like(logits[:, :1], bonus))
    return broken(logits, labels, targets)


def shortfall(logits: Tensor, labels: Tensor, targets: Tensor | None, confidence: float) -> Tensor:
    """max(z_y − max_{i≠y} z_i + κ, 0); targeted: max(max_{i≠t} z_i − z_t + κ, 0); (N,)."""
    if targets is None:
        lead = at(logits, labels) - best_other(logits, labels)
    else:
        lead = best_other(logits, targets) - at(logits, targets)
    return (lead + confidence).clamp(min=0)


def descend(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    c: Tensor,
    confidence: float,
    steps: int,
    lr: float,
    early_stop: bool,
) -> tuple[Tensor, Tensor]:
    """One search: the nearest adversarial image met on the way, and its distance (N,), infinite where none was met."""
    ends, ways = images.clone(), torch.full_like(c, torch.inf)
    w = (INSIDE * (2 * images - 1)).atanh()
    centre = (w.tanh() + 1) / 2  # the image, as far as w can say it
    item, delta = torch.arange(len(images), device=images.device), torch.zeros_like(w)
    first, second, last_loss = torch.zeros_like(w), torch.zeros_like(w), torch.full_like(c, torch.inf)
    check = min(math.ceil(steps / 10), LOOK)
    for step in range(1, steps + 1):
        moved, logits, loss, found = _pass(forward, w, delta, centre, labels, targets, c, confidence)
        way = lengths(moved - images)
        closer = misnamed(logits, labels, targets, confidence) & (way < ways[item])
        ends[item[closer]], ways[item[closer]] = moved[closer], way[closer]

        first = BETAS[0] * first + (1 - BETAS[0]) * found
        second = BETAS[1] * second + (1 - BETAS[1]) * found**2
        mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        delta = delta - lr * mean / (square.sqrt() + SMALL)

        if early_stop and step % check == 0:
            falling = (loss <= PROGRESS * last_loss) | (step < FIRST * steps)
            last_loss = loss
            if not falling.all():
                item, images, labels, targets, c, w, centre, delta, first, second, last_loss = kept(
                    falling, item, images, labels, targets, c, w, centre, delta, first, second, last_loss
                )
            if not len(item):
                break
    return ends, ways


def _pass(
    forward: Forward,
    w: Tensor,
    delta: Tensor,
    centre: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    c: Tensor,
    confidence: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, logits, losses (N,) at w + δ, and the losses' gradient by δ."""
    delta = delta.detach().requires_grad_()
    moved = ((w + delta).tanh() + 1) / 2
    logits = forward(moved)
    loss = (moved - centre).square().flatten(1).sum(1) + c * shortfall(logits, labels, targets, confidence)
    (found,) = torch.autograd.grad(loss.sum(), delta)
    return moved.detach(), logits.detach(), loss.detach(), found.nan_to_num(0, 0, 0)
