"""CycleGAN with a labeller that says whether a translation has kept its class.

Source: Hoffman et al. 2018, "CyCADA: Cycle-Consistent Adversarial Domain Adaptation" (arXiv 1711.03213), equations 1
to 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datamodules.spec import Spec
from lightning_modules.adaptation.network import DANN, SOURCE, TARGET, DigitNetwork, SourceOnly
from lightning_modules.adaptation.translation.cyclegan import CycleGAN


class TranslatedDANN(DANN):
    """A classifier of translated images whose domain head tells them from the target's own.

    Both pass as one batch, and whatever it is given is normalised as the target.
    """

    own_domain = TARGET

    def features_of_both(self, source: Tensor, target: Tensor) -> Tensor:
        return self.features(torch.cat([source, target]))


class CyCADA(CycleGAN):
    """`model=cycada`: beside CycleGAN's players the labeller f_S, a network trained on the source, fixed.

    It stays in evaluation mode, and its parameters ask for no gradient. The classifier has a domain head for
    `task.module.feature_level`.

    Args: as of `CycleGAN`.
    """

    def __init__(self, spec: Spec, **settings: Any):
        super().__init__(spec, **settings)
        self.labeller = SourceOnly(spec, **self.classifier.settings).requires_grad_(False)
        self.labeller.eval()

    def make_classifier(self, spec: Spec, **settings: Any) -> DigitNetwork:
        return TranslatedDANN(spec, **settings)

    def train(self, mode: bool = True) -> CyCADA:
        super().train(mode)
        self.labeller.eval()
        return self

    def label_logits(self, x: Tensor) -> Tensor:
        """f_S's logits of images in [−1, 1], with the source's statistics whatever the domain."""
        return self.labeller(self.intensities(x), SOURCE)
