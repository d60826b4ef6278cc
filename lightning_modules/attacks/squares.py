"""Square attack: random squares, kept where they lower the margin. It asks for logits only, never for a gradient.

Source: Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search"
(arXiv 1912.00049), section 3, L∞.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.attacks.amounts import parse_eps, require_at_least, require_images, require_norm
from lightning_modules.attacks.balls import finished
from lightning_modules.attacks.crafting import Forward, copied, crafted
from lightning_modules.attacks.draws import Source
from lightning_modules.attacks.judging import broken, kept, predicted
from lightning_modules.attacks.losses import margin

HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the queries, from the authors' code
DRAWN_AT_ONCE = 100  # queries; part of what a seed means


@crafted
def square(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: str = "Linf",
    share: float = 0.8,
    targets: Tensor | None = None,
    seed: int = 0,
    items: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Vertical stripes of ±ε first; then at each query a square of ±ε for each item, kept if the margin rises.

    An item leaves the batch at its first success. Unlike the authors' code, squares reach the last row and column.

    Args:
        forward, images, labels, eps, targets: as in `fgsm`.
        queries: passes at most, the stripes' included.
        norm: `Linf`.
        share: of the pixels that a square covers at first, halved at `HALVED_AT` of the queries.
        seed, items, generator: as in `pgd`.

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    require_norm(norm, ("Linf",), "Square")
    parse_eps(eps)
    require_at_least(1, queries=queries)
    require_images(images, labels)
    x, y, aims = copied(images, labels, targets)
    draws = Source(len(x), seed, items, generator)(0)
    channels, height, width = x.shape[1:]
    stripes = draws.uniform((channels, 1, width), x) < 0.5
    sizes = (side(number / queries, share, height, width) for number in range(1, queries))

    ends, standing = x.clone(), torch.arange(len(x), device=x.device)
    best = (x + eps * (1 - 2 * stripes.to(x))).clamp(0, 1)
    logits = predicted(forward, best)
    height_of = margin(logits, y, aims)
    hit = broken(logits, y, aims)
    ends[standing] = best
    chunk, row = None, DRAWN_AT_ONCE
    for size in sizes:
        if hit.any():
            draws = draws.kept(~hit)
            standing, best, x, y, aims, height_of, chunk = kept(~hit, standing, best, x, y, aims, height_of, chunk)
        if not len(standing):
            break
        if row == DRAWN_AT_ONCE:
            chunk, row = draws.uniform((DRAWN_AT_ONCE, 2 + channels), x), 0
        tried = with_squares(best, x, chunk[:, row], size, eps)
        row += 1
        logits = predicted(forward, tried)
        reached, hit = margin(logits, y, aims), broken(logits, y, aims)
        better = (reached > height_of) | hit
        best = torch.where(better[:, None, None, None], tried, best)
        height_of = torch.where(better, reached, height_of)
        ends[standing[better]] = tried[better]
    return finished(ends, images, eps, norm)


def side(done: float, share: float, height: int, width: int) -> int:
    """Side of the squares when this part of the queries is done: of `share`, halved so often, of the pixels."""
    part = share / 2 ** bisect_left(HALVED_AT, done)
    return min(max(round((part * height * width) ** 0.5), 1), height, width)


def with_squares(best: Tensor, images: Tensor, drawn: Tensor, size: int, eps: float) -> Tensor:
    """`best` with image ± ε in a square of each item; `drawn` (N, 2 + C) in [0, 1): its row, column, signs."""
    height, width = images.shape[2:]
    rows, columns = (inside(drawn[:, axis], size, length, images) for axis, length in enumerate((height, width)))
    there = rows[:, None, :, None] & columns[:, None, None, :]
    signs = 1 - 2 * (drawn[:, 2:] < 0.5).to(images)
    return torch.where(there, (images + eps * signs[:, :, None, None]).clamp(0, 1), best)


def inside(drawn: Tensor, size: int, length: int, like: Tensor) -> Tensor:
    """Which of the `length` rows or columns (N, length) a square covers whose first one is drawn uniformly."""
    first = (drawn * (length - size + 1)).long().clamp(max=length - size)[:, None]
    places = torch.arange(length, device=like.device)
    return (places >= first) & (places < first + size)
