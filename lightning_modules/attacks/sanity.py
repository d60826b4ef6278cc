"""Is an attack any good? Tests of the attack, not of the network.

Sources: Carlini et al. 2019, "On Evaluating Adversarial Robustness" (arXiv 1902.06705); Zimmermann et al. 2022,
"Increasing Confidence in Adversarial Robustness Evaluations" (arXiv 2206.13991).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.attacks.amounts import parse_eps, require_at_least, require_images, require_norm
from lightning_modules.attacks.balls import direction, drawn_in_ball, into_ball
from lightning_modules.attacks.crafting import Forward, copied, crafted, gradient
from lightning_modules.attacks.draws import Draws
from lightning_modules.attacks.judging import predicted, succeeded
from lightning_modules.attacks.losses import Loss, loss_named

RIDGE = 1e-3  # of the mean variance: features that never vary would otherwise divide by zero
TRIES = 20

Attack = Callable[[Forward, Tensor, Tensor], Tensor]  # forward, images, labels → images


@dataclass(frozen=True)
class Confidence:
    """Shares of the items broken in the altered networks: by the attack, and by a random point of the ball."""

    attack: float
    noise: float
    items: int

    @property
    def passed(self) -> bool:
        """The attack finds what surely exists (95 % and more), and chance does not (under half)."""
        return self.items > 0 and self.attack >= 0.95 and self.noise < 0.5


@crafted
def increasing_confidence(
    attack: Attack,
    features: Forward,
    images: Tensor,
    *,
    eps: float,
    norm: str = "Linf",
    samples: int = 200,
    seed: int = 0,
    items: Sequence[int] | None = None,
) -> Confidence:
    """Breaks, for each image, a two-class network altered so that an adversarial image surely exists in its ball.

    A linear layer on the network's features (N, D), its logits say, tells the image and `samples` random points of its
    ball (class 0) from one point on the ball's edge (class 1). The attack has to reach class 1; other random points, as
    many, hardly do. An attack that fails here says nothing by failing on the network itself. Images are attacked one at
    a time, each having a layer of its own; those whose layer cannot be made in 20 tries are left out.

    Args:
        attack: (forward, images, labels) → images, with the same ε and norm.
        features: images in [0, 1] → features (N, D), differentiable.
        images: (N, C, H, W); a few dozen are enough.
        samples: random points, for making a layer and again for trying it.
        seed, items: of the draws, as in `pgd`.

    Raises:
        UsageError: a number, the norm or the images are impossible.
    """
    require_norm(norm)
    parse_eps(eps, norm)
    require_at_least(2, samples=samples)
    require_images(images, torch.zeros(len(images)))
    (images,) = copied(images)
    numbers = range(len(images)) if items is None else items
    broken, chance = [], []
    for image, number in zip(images.split(1), numbers, strict=True):
        draws = Draws(seed, [number])
        forward = altered(features, image, eps, norm, samples, draws)
        if forward is None:
            continue
        label = torch.zeros(1, dtype=torch.long, device=image.device)
        broken.append(succeeded(forward, attack(forward, image, label), label).item())
        points = in_ball(image, eps, norm, samples, draws)
        chance.append(succeeded(forward, points, label.expand(samples)).float().mean().item())
    count = max(len(broken), 1)
    return Confidence(sum(broken) / count, sum(chance) / count, len(broken))


def altered(features: Forward, image: Tensor, eps: float, norm: str, samples: int, draws: Draws) -> Forward | None:
    """The two-class network around one image (1, C, H, W), or None where no edge point could be told apart.

    Its direction is Fisher's, (Σ + ridge)⁻¹ (f_edge − μ), its threshold halfway from the farthest random point to the
    edge's, its logits measured in standard deviations of the random points.
    """
    inner = torch.cat([image, in_ball(image, eps, norm, samples, draws)])
    known = predicted(features, inner).double()
    mean, centred = known.mean(0), known - known.mean(0)
    covariance = centred.T @ centred / len(known)
    covariance.diagonal().add_(RIDGE * covariance.diagonal().mean() + 1e-12)
    for _ in range(TRIES):
        edge = predicted(features, on_edge(image, eps, norm, draws))[0].double()
        weight = torch.linalg.solve(covariance, edge - mean)
        values, reached = known @ weight, edge @ weight
        scale = values.std()
        if reached > values.max() + 1e-6 * scale and scale > 0:
            threshold = (values.max() + reached) / 2
            w, b = (weight / scale).to(image), (threshold / scale).to(image)
            return lambda x: _two_classes(features(x) @ w - b)
    return None


def _two_classes(score: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(score), score], 1)


def in_ball(image: Tensor, eps: float, norm: str, samples: int, draws: Draws) -> Tensor:
    """Random points (samples, C, H, W) of one image's ball, uniform."""
    rows = [drawn_in_ball(image, eps, norm, draws) for _ in range(samples)]
    return torch.cat(rows)


def on_edge(image: Tensor, eps: float, norm: str, draws: Draws) -> Tensor:
    """A random point on the ball's edge (1, C, H, W), inside the box: a corner (L∞), a direction (L2)."""
    moved = image + eps * direction(draws.normal(image.shape[1:], image), norm)
    return into_ball(moved.clamp(0, 1), image, eps, norm)


@crafted
def zero_gradients(forward: Forward, images: Tensor, labels: Tensor, loss: str | Loss = "cross_entropy") -> Tensor:
    """At which images (N,) the loss's gradient is exactly 0 everywhere, so that no gradient attack can begin."""
    images, labels = copied(images, labels)
    found, _, _ = gradient(forward, images, labels, loss_named(loss))
    return (found == 0).flatten(1).all(1)


@crafted
def loss_surface(
    forward: Forward, image: Tensor, label: Tensor, *, eps: float, points: int = 21, seed: int = 0, item: int = 0
) -> Tensor:
    """Cross-entropy (points, points) of one image (1, C, H, W) moved by −ε … ε along two directions, then clamped.

    Rows: along the sign of the gradient at the image; columns: along random signs.
    """
    image, label = copied(image, label)
    loss = loss_named("cross_entropy")
    found, _, _ = gradient(forward, image, label, loss)
    other = Draws(seed, [item]).normal(image.shape[1:], image).sign()
    scale = torch.linspace(-eps, eps, points, device=image.device, dtype=image.dtype)[:, None, None, None]
    rows = [(image + one * found.sign() + scale * other).clamp(0, 1) for one in scale]
    return torch.stack([loss(predicted(forward, row), label.expand(points)) for row in rows])
