"""Attacks without a gradient of their own: random noise, which a gradient must beat; turns and shifts.

Source of the latter: Engstrom et al. 2019, "Exploring the Landscape of Spatial Robustness" (arXiv 1712.02779).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.attacks.amounts import parse_eps, require_at_least, require_images, require_norm
from lightning_modules.attacks.balls import drawn_in_ball, finished
from lightning_modules.attacks.crafting import Forward, copied, crafted
from lightning_modules.attacks.draws import Source
from lightning_modules.attacks.judging import broken, kept, predicted
from lightning_modules.attacks.losses import margin


@crafted
def noise(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "Linf",
    samples: int = 10,
    targets: Tensor | None = None,
    seed: int = 0,
    items: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The best of `samples` points drawn uniformly in the ball: the first that succeeds, else the largest margin.

    Args:
        forward, images, labels, eps, norm, targets: as in `fgsm`.
        samples: points for each item.
        seed, items, generator: as in `pgd`; sample n takes restart n's draws.

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    require_norm(norm, attack="Noise")
    parse_eps(eps, norm)
    require_at_least(1, samples=samples)
    require_images(images, labels)
    images, labels, targets = copied(images, labels, targets)
    source = Source(len(images), seed, items, generator)
    candidates = (
        lambda here, standing, number=number: drawn_in_ball(here, eps, norm, source(number, standing))
        for number in range(samples)
    )
    return finished(_best(forward, images, labels, targets, candidates), images, eps, norm)


@crafted
def spatial(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    angle: float = 30.0,
    shift: float = 0.1,
    angles: int = 31,
    shifts: int = 5,
    targets: Tensor | None = None,
) -> Tensor:
    """The mildest of a grid of turns and shifts that succeeds, else the one with the largest margin.

    Outside every ball, and so not counted in the worst case. Pixels from outside are 0; bilinear.

    Args:
        forward, images, labels, targets: as in `fgsm`.
        angle: the largest turn either way, in degrees.
        shift: the largest shift either way, as a share of the side, at least one pixel unless it is 0.
        angles, shifts: how many of each, evenly, shifts both across and down.

    Raises:
        UsageError: a number or the images are impossible.
    """
    require_at_least(1, angles=angles, shifts=shifts)
    require_images(images, labels)
    images, labels, targets = copied(images, labels, targets)
    height, width = images.shape[2:]
    reach = [max(round(shift * side), 1) if shift else 0 for side in (width, height)]
    across, down = (torch.linspace(-most, most, shifts).tolist() if shifts > 1 else [0.0] for most in reach)
    turns = torch.linspace(-angle, angle, angles).tolist() if angles > 1 else [0.0]
    grid = sorted(product(turns, across, down), key=lambda way: (abs(way[0]), abs(way[1]) + abs(way[2])))
    candidates = (lambda here, _, way=way: turned(here, *way) for way in grid)
    return _best(forward, images, labels, targets, candidates).clamp(0, 1)


def turned(images: Tensor, degrees: float, across: float, down: float) -> Tensor:
    """Images turned about their middle, then moved right and down by pixels."""
    height, width = images.shape[2:]
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # Where each pixel comes from, in coordinates −1 … 1 of the original; sides may differ.
    x, y = -2 * across / width, -2 * down / height
    ratio = height / width
    matrix = images.new_tensor([[c, s * ratio, c * x + s * ratio * y], [-s / ratio, c, -s / ratio * x + c * y]])
    where = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, where, mode="bilinear", padding_mode="zeros", align_corners=False)


def _best(forward: Forward, images: Tensor, labels: Tensor, targets: Tensor | None, candidates: Iterator) -> Tensor:
    """Tries each candidate on the items still standing, and keeps each item's first success or largest margin."""
    ends = images.clone()
    standing, most = torch.arange(len(images), device=images.device), images.new_full((len(images),), -torch.inf)
    for candidate in candidates:
        here, to, aims = kept(standing, images, labels, targets)
        moved = candidate(here, standing)
        logits = predicted(forward, moved)
        hit, height = broken(logits, to, aims), margin(logits, to, aims).to(most)
        better = hit | (height > most[standing])
        ends[standing[better]], most[standing[better]] = moved[better], height[better]
        standing = standing[~hit]
        if not len(standing):
            break
    return ends
