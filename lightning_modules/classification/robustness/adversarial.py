"""Adversarial training: each batch is replaced by the worst that a ball around its images holds.

Sources: Madry et al. 2018 (arXiv 1706.06083), Wong et al. 2020 (arXiv 2001.03994), Zhang et al. 2019 (TRADES, arXiv
1901.08573).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from lightning_modules import attacks
from lightning_modules.classification.network import Classifier

log = logging.getLogger(__name__)
METHODS = ("pgd", "fgsm_rs", "trades")
WATCHED = 10  # steps of PGD that validations measure


@dataclass
class Adversary:
    """How a classifier is trained against attacks; `method` None: it is not.

    Args:
        method: `pgd` (k steps), `fgsm_rs` (one step from a uniform start) or `trades`.
        eps: radius of the L∞ ball, intensities 0 … 1, such as 8/255.
        steps, step: of the inner maximum; None: the method's own.
        warmup: ε grows linearly over this part of training.
        craft_mode: the network's mode while crafting, `eval` or `train`.
        beta: weight of TRADES' divergence.
        val_items: validation images on which PGD-10 is measured, as `val/robust_accuracy`.
        aimed: log `val/aimed_accuracy` too, robust accuracy with a method and clean accuracy without, by which
            networks trained in either way choose their checkpoint alike.

    Raises:
        UsageError: a setting is impossible.
    """

    method: str | None = None
    eps: str | float = "8/255"
    steps: int | None = None
    step: str | float | None = None
    warmup: float = 0.0
    craft_mode: str = "eval"
    beta: float = 6.0
    val_items: int = 500
    aimed: bool = False

    def __post_init__(self) -> None:
        self.eps = attacks.parse_eps(self.eps, name="task.module.adversarial.eps")
        if self.step is not None:
            self.step = attacks.parse_eps(self.step, name="task.module.adversarial.step")
        if self.method not in (None, *METHODS):
            near = did_you_mean(str(self.method), METHODS)
            raise UsageError(f"task.module.adversarial.method is {self.method}{near}: choose {', '.join(METHODS)} or "
                             "null.")  # fmt: skip
        if self.method == "fgsm_rs" and self.steps not in (None, 1):
            raise UsageError(f"task.module.adversarial.steps is {self.steps}, but fgsm_rs takes one step: choose pgd.")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise UsageError(f"task.module.adversarial.steps is {self.steps}, but it must be from 1 to 1000.")
        if not 0 <= self.warmup <= 1 or not self.beta >= 0 or not 1 <= self.val_items <= 1_000_000:
            raise UsageError(
                "task.module.adversarial: warmup must be from 0 to 1, beta 0 or more, val_items from 1 to 1,000,000."
            )
        if self.craft_mode not in ("eval", "train"):
            raise UsageError(f"task.module.adversarial.craft_mode is {self.craft_mode}: choose eval or train.")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Adversary:
        """From a configuration; one without it, of an earlier version, trains in the ordinary way."""
        known = {field.name for field in fields(cls)}
        for key in given or {}:
            if key not in known:
                raise UsageError(f"task.module.adversarial has no {key}{did_you_mean(str(key), known)}.")
        return cls(**(given or {}))

    def check_monitor(self, monitor: str) -> None:
        """Says where the checkpoint is chosen by images left alone.

        Raises:
            UsageError: it would be chosen by what is not measured.
        """
        needed = {"val/robust_accuracy": "method=pgd, fgsm_rs or trades", "val/aimed_accuracy": "aimed=true"}
        measured = {"val/robust_accuracy": self.method, "val/aimed_accuracy": self.aimed}
        if not measured.get(monitor, True):
            raise UsageError(f"task.monitor is {monitor}, which is measured only with task.module.adversarial."
                             f"{needed[monitor]}.")  # fmt: skip
        if self.method and monitor not in measured:
            log.warning("The network is trained against attacks, but the best checkpoint is chosen by %s, of images "
                        "left alone: task.monitor=val/robust_accuracy task.mode=max chooses it under PGD-%d.",
                        monitor, WATCHED)  # fmt: skip

    def batch(self, network: Classifier, images: Tensor, labels: Tensor, part_done: float) -> Tensor:
        """Images (B, C, H, W), intensities 0 … levels − 1 → the adversarial ones, on the same scale.

        Draws come from torch's own generator, which a checkpoint keeps.
        """
        most = network.spec.levels - 1
        eps = attacks.eps_now(self.eps, part_done, self.warmup)
        with attacks.crafting(network, self.craft_mode, precise=False):
            forward = attacks.forward_of(network, network.spec.levels)
            how = {"steps": self.steps, "step": self.step}
            return most * attacks.adversarial(self.method, forward, images.float() / most, labels, eps=eps, **how)

    def loss(self, clean: Tensor | None, moved: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """Cross-entropy of the adversarial logits; of TRADES the clean images' and the divergence between both."""
        if clean is None:
            return F.cross_entropy(moved, labels, label_smoothing=label_smoothing)
        return attacks.trades_loss(clean, moved, labels, self.beta, label_smoothing)

    def withstood(self, network: Classifier, images: Tensor, labels: Tensor, seen: int, limit: int) -> Tensor:
        """Which images (B,) withstand PGD-10; `seen` of the split came before, and beyond `limit` none is tried."""
        tried, most = max(0, min(len(images), limit - seen)), network.spec.levels - 1
        kept = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        if tried:
            with attacks.crafting(network):
                forward = attacks.forward_of(network, network.spec.levels)
                inside, to = images[:tried].float() / most, labels[:tried]
                moved = attacks.pgd(forward, inside, to, eps=self.eps, steps=WATCHED, items=range(seen, seen + tried))
                kept[:tried] = ~attacks.succeeded(forward, moved, to)
        return kept


class Overfitting:
    """Notices catastrophic overfitting of single-step training: what a single step finds is withstood, PGD is not.

    Source: Wong et al. 2020, section 5.
    """

    def __init__(self, said: bool = False) -> None:
        self.best, self.before, self.said = 0.0, 0.0, said

    def noticed(self, robust: float, trained: float) -> bool:
        """After a validation: is robust accuracy below a third of its best while training's accuracy rises?"""
        found = robust < self.best / 3 and trained > self.before
        self.best, self.before = max(self.best, robust), trained
        if found and not self.said:
            self.said = True
            log.warning(
                "Catastrophic overfitting: PGD-%d leaves %.1f %% of validation images right, after %.1f %% before, "
                "while training's own attack leaves ever more. Give more steps (method=pgd), a warm-up or less eps; "
                "task.monitor=val/robust_accuracy task.mode=max keeps the best checkpoint before it.",
                WATCHED, 100 * robust, 100 * self.best,
            )  # fmt: skip
        return found
