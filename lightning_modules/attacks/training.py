"""Adversarial training: what each batch is replaced by, and the loss of TRADES.

Unlike the attacks of an evaluation these draw for a batch at once, from one generator that a checkpoint can hold, make
all steps of all items, and leave precision and the network's mode to the caller (`crafting`).

Sources: Madry et al. 2018 (arXiv 1706.06083); Wong et al. 2020, "Fast is better than free" (arXiv 2001.03994); Zhang et
al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy" (arXiv 1901.08573).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError
from lightning_modules.attacks.amounts import require_at_least
from lightning_modules.attacks.balls import projected
from lightning_modules.attacks.crafting import Forward, copied
from lightning_modules.attacks.gradient import ascend
from lightning_modules.attacks.judging import predicted
from lightning_modules.attacks.losses import cross_entropy, divergence, divergence_from

METHODS = ("pgd", "fgsm_rs", "trades")


def adversarial(
    method: str,
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int | None = None,
    step: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The batch to train on, by the method's name; call it inside `crafting(network, craft_mode)`.

    Args:
        method: `pgd`, `fgsm_rs` or `trades`: see `inner_pgd`, `inner_fgsm_rs`, `inner_trades`.
        forward: images in [0, 1] (N, C, H, W) → logits (N, K).
        eps: radius of the L∞ ball, as it stands now: see `eps_now`.
        steps, step: None: the method's own.

    Raises:
        UsageError: another method; no step; `fgsm_rs` with other than one.
    """
    if steps is not None:
        require_at_least(1, **{"adversarial.steps": steps})
    if method == "pgd":
        return inner_pgd(forward, images, labels, eps=eps, steps=steps or 7, step=step, generator=generator)
    if method == "trades":
        return inner_trades(forward, images, eps=eps, steps=steps or 10, step=step, generator=generator)
    if method != "fgsm_rs":
        raise UsageError(f"adversarial.method is {method}, but it must be {', '.join(METHODS)} or null.")
    if steps not in (None, 1):
        raise UsageError(f"adversarial.steps is {steps}, but fgsm_rs takes one step: choose pgd.")
    return inner_fgsm_rs(forward, images, labels, eps=eps, step=step, generator=generator)


def inner_pgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 7,
    step: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Madry et al. 2018, equation 2.1: `steps` steps (None: of 2.5 ε / steps) from a uniform start in the L∞ ball."""
    images, labels = copied(images, labels)
    step = 2.5 * eps / steps if step is None else step
    start = uniform_start(images, eps, generator)
    return ascend(forward, start, images, labels, eps, step, steps, "Linf", cross_entropy).detach()


def inner_fgsm_rs(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Wong et al. 2020, algorithm 3: one step of α (None: 1.25 ε) from a uniform start, projected on the ball."""
    return inner_pgd(
        forward, images, labels, eps=eps, steps=1, step=1.25 * eps if step is None else step, generator=generator
    )


def inner_trades(
    forward: Forward,
    images: Tensor,
    *,
    eps: float,
    steps: int = 10,
    step: float | None = None,
    start: float = 0.001,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zhang et al. 2019, algorithm 1: steps (None: of ε / 4) up KL(p(x) ‖ p(x′)), p(x) fixed.

    Args:
        start: standard deviation of the Gaussian start.

    Raises:
        UsageError: no start: at x′ = x the divergence is at its minimum, and its gradient exactly 0.
    """
    if not start > 0:
        raise UsageError("TRADES needs a start: at the image itself the gradient of the divergence is exactly 0.")
    (images,) = copied(images)
    gaussian = torch.randn(images.shape, generator=generator, device=_device(images, generator), dtype=images.dtype)
    moved = projected(images + start * gaussian.to(images.device), images, eps, "Linf")
    clean = predicted(forward, images).float()
    labels = clean.argmax(1)  # that no loss looks at
    step = eps / 4 if step is None else step
    return ascend(forward, moved, images, labels, eps, step, steps, "Linf", divergence_from(clean)).detach()


def trades_loss(
    clean: Tensor, moved: Tensor, labels: Tensor, beta: float = 6.0, label_smoothing: float = 0.0
) -> Tensor:
    """CE(x) + β · KL(p(x) ‖ p(x′)), KL summed over classes, mean over items, gradients through both (equation 5).

    Args:
        clean, moved: logits (N, K) of the images and of the adversarial ones, both in train mode.
    """
    cross = F.cross_entropy(clean, labels, label_smoothing=label_smoothing)
    return cross + beta * divergence(moved, clean).mean()


def uniform_start(images: Tensor, eps: float, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in each image's L∞ ball, clamped to [0, 1]."""
    u = torch.rand(images.shape, generator=generator, device=_device(images, generator), dtype=images.dtype)
    return (images + (2 * u.to(images.device) - 1) * eps).clamp(0, 1)


def eps_now(eps: float, part_done: float, warmup: float = 0.0) -> float:
    """ε, growing linearly over the first `warmup` of training."""
    return eps * min(1.0, part_done / warmup) if warmup else eps


def _device(images: Tensor, generator: torch.Generator | None) -> torch.device:
    return images.device if generator is None else generator.device
