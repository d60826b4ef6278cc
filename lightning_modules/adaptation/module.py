"""The task with one optimizer: training on the source alone, on the target's labels, or against a domain head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.domains.pairs import PairBatch
from datamodules.errors import UsageError
from lightning_modules.adaptation.network import SOURCE, TARGET, DigitNetwork
from lightning_modules.adaptation.reversal import domain_loss, domain_losses, reversal_strength, reverse
from lightning_modules.adaptation.two_domains import TwoDomains
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured


class Adaptation(TwoDomains):
    """Cross-entropy on labelled images; with a domain head (`model=dann`) against it too.

    DANN is the game of equations 10 and 13 to 15, played in one step by gradient reversal: the domain head lowers its
    loss at the full rate, the features raise it with the weight λ, which grows with the part of training that is done.

    Logs of training `loss` and `accuracy_source` (`accuracy_target` of an upper bound) of labelled images, and of DANN
    `domain_loss`, `domain_accuracy` (0.5: confused; near 1: not adapted; below 0.4: λ is too large) and `lambda`.

    Args:
        network, optimizer, scheduler, oracle, embedded_items: as of `TwoDomains`.
        gamma: how fast λ grows from 0 towards 1.

    Raises:
        UsageError: `gamma` is below 0.
    """

    def __init__(
        self,
        network: DigitNetwork,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        gamma: float = 10.0,
        oracle: bool = False,
        embedded_items: int = 500,
    ):
        super().__init__(network, optimizer, scheduler, oracle, embedded_items)
        if gamma < 0:
            raise UsageError(f"task.module.gamma is {gamma}, but it must be 0 (no adversary) or more.")
        self.gamma = gamma

    def measure_training(self, batch: PairBatch) -> Measured:
        if self.network.trains_on == "both":
            return self.measure_dann(batch)
        if self.network.trains_on == "source":
            return labelled(self.network(batch.source, SOURCE).float(), batch.labels, "accuracy_source")
        labels = torch.from_numpy(self.data.target_labels("train", peeking=True)[batch.rows.cpu().numpy()])
        return labelled(self.network(batch.target, TARGET).float(), labels.to(self.device), "accuracy_target")

    def measure_dann(self, batch: PairBatch) -> Measured:
        items, strength = len(batch.labels), reversal_strength(self.part_done, self.gamma)
        features = self.network.features_of_both(batch.source, batch.target)
        measured = labelled(self.network.classify(features[:items]).float(), batch.labels, "accuracy_source")
        logits = self.network.domain_logits(reverse(features, strength)).float()
        losses = domain_losses(logits, items)
        right = (logits > 0) == (torch.arange(2 * items, device=logits.device) >= items)
        values = {
            **measured.values,
            "domain_loss": losses,
            "domain_accuracy": right,
            "lambda": torch.full((items,), strength),
        }
        return Measured(measured.loss + domain_loss(losses, items), values)

    def domain_figures(self) -> dict[str, float]:
        found = super().domain_figures()
        if self.network.trains_on == "both":
            with torch.no_grad():
                logits = [self.network.domain_logits(torch.from_numpy(f).to(self.device)) for f in self.test_features()]
            found["domain_accuracy"] = float(((logits[0] <= 0).double().mean() + (logits[1] > 0).double().mean()) / 2)
        return found


def labelled(logits: Tensor, labels: Tensor, name: str) -> Measured:
    """Cross-entropy, and under `name` whether the classes are right."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    return Measured(losses.mean(), {"loss": losses, name: logits.argmax(1) == labels})
