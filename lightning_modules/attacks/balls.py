"""Balls around images, and the box [0, 1]: projections, draws inside, distances."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.attacks.draws import Draws

TOLERANCE = 1e-6
TINY = 1e-12  # keeps a gradient of zero from being divided by zero


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """(N,) → (N, 1, …, 1), to be multiplied with images."""
    return values.view(-1, *[1] * (like.ndim - 1))


def lengths(images: Tensor) -> Tensor:
    """(N, …) → Euclidean length of each (N,)."""
    return images.flatten(1).norm(dim=1)


def distances(images: Tensor, others: Tensor, norm: str) -> Tensor:
    """Of each pair (N, …): the largest difference (`Linf`) or the Euclidean one (`L2`), (N,)."""
    difference = others - images
    return difference.flatten(1).abs().amax(1) if norm == "Linf" else lengths(difference)


def into_ball(moved: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """The point of the ball around each image that is nearest to `moved`."""
    difference = moved - images
    if norm == "Linf":
        return images + difference.clamp(-eps, eps)
    factor = (eps / lengths(difference).clamp(min=TINY)).clamp(max=1)
    return images + difference * per_item(factor, images)


def projected(moved: Tensor, images: Tensor, eps: float, norm: str, order: str = "ball_box") -> Tensor:
    """Ball, then box: since the box contains the centre, the second step leaves no ball. `box_ball`: ART's order.

    In L∞ both orders are the projection on the intersection and equal; in L2 neither is, and they differ.
    """
    if order == "box_ball":
        return into_ball(moved.clamp(0, 1), images, eps, norm)
    return into_ball(moved, images, eps, norm).clamp(0, 1)


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The step of length 1 that raises a linear function most: the sign (L∞), the unit vector (L2)."""
    if norm == "Linf":
        return gradient.sign()
    return gradient * per_item(1 / lengths(gradient).clamp(min=TINY), gradient)


def drawn_in_ball(images: Tensor, eps: float, norm: str, draws: Draws) -> Tensor:
    """A point of each image's ball, uniformly, then clamped to the box.

    L2: a Gaussian's direction, at a distance ε·u^(1/d), d the number of intensities.
    """
    shape = images.shape[1:]
    if norm == "Linf":
        moved = images + (2 * draws.uniform(shape, images) - 1) * eps
    else:
        gaussian, u = draws.normal(shape, images), draws.uniform((), images)
        radius = eps * u ** (1 / images[0].numel())
        moved = images + gaussian * per_item(radius / lengths(gaussian).clamp(min=TINY), images)
    return moved.clamp(0, 1)


def finished(moved: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """What an attack returns: `moved`, proved to be inside ball and box to 1e-6, then clamped exactly where L∞ can.

    Raises:
        AssertionError: an attack left the ball or the box, which is a mistake of this project.
    """
    moved = moved.detach()
    if moved.numel():
        farthest, least, most = distances(images, moved, norm).max(), moved.min(), moved.max()
        inside = (farthest <= eps + TOLERANCE * max(1.0, eps)) & (least >= -TOLERANCE) & (most <= 1 + TOLERANCE)
        assert inside, f"an attack went to a distance of {farthest:.8g} (ε {eps:.8g}), {least:.8g} … {most:.8g}"
    if norm == "Linf":
        moved = torch.maximum(torch.minimum(moved, images + eps), images - eps)
    return moved.clamp(0, 1)
