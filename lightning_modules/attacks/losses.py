"""What an attack raises: one number for each item, so that an item's gradient does not depend on its neighbours.

Letters: z the logits (N, K), y the label, t a target, z_π1 ≥ z_π2 ≥ … the logits in order. Every loss is to be
maximised; with `targets` it grows as the target wins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean

Loss = Callable[..., Tensor]  # (logits, labels, targets or None) → (N,)

SMALL = 1e-12  # three equal logits: as in the authors' code, no division by zero


def at(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of each item's class (N,)."""
    return logits.gather(1, classes[:, None])[:, 0]


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{i≠y} z_i (N,)."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """−log softmax(z)_y; targeted: log softmax(z)_t."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """max_{i≠y} z_i − z_y; targeted: z_t − z_y. Above 0 where the item is broken."""
    rival = best_other(logits, labels) if targets is None else at(logits, targets)
    return rival - at(logits, labels)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """−(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), K ≥ 3: unchanged when the logits are scaled or shifted.

    With two classes, where it is not defined, the margin; with `targets`, `dlr_t`.

    Source: Croce & Hein 2020 (arXiv 2003.01690), equation 6.
    """
    if targets is not None:
        return dlr_t(logits, labels, targets)
    if logits.shape[1] < 3:
        return margin(logits, labels)
    ordered = logits.sort(1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + SMALL)


def dlr_t(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2), K ≥ 4; with fewer classes the margin z_t − z_y.

    Source: Croce & Hein 2020, equation 7.
    """
    if logits.shape[1] < 4:
        return margin(logits, labels, targets)
    ordered = logits.sort(1, descending=True).values
    return margin(logits, labels, targets) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + SMALL)


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(p ‖ p′) = Σ_k p_k (log p_k − log p′_k), p the softmax of `clean`, p′ of `logits`: (N,), both with gradients.

    Source: Zhang et al. 2019 (TRADES, arXiv 1901.08573), equation 5.
    """
    fixed, moved = clean.log_softmax(1), logits.log_softmax(1)
    return (fixed.exp() * (fixed - moved)).sum(1)


def divergence_from(clean: Tensor) -> Loss:
    """`divergence` from fixed logits, as a loss of an attack."""
    return lambda logits, labels, targets=None: divergence(logits, clean)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def loss_named(loss: str | Loss) -> Loss:
    """A loss by its name; a function stands for itself.

    Raises:
        UsageError: no loss has this name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise UsageError(f"loss={loss} is none of {', '.join(LOSSES)}{did_you_mean(loss, LOSSES)}.")
    return LOSSES[loss]


def loss_used(loss: str, classes: int, targeted: bool = False) -> str:
    """The name of the loss that is computed, for a table: with too few classes `margin` stands for `dlr`."""
    return "margin" if loss == "dlr" and classes < (4 if targeted else 3) else loss
