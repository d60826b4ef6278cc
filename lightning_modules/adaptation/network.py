"""The networks: DANN's for digits, with and without its domain head, and the normalisation that knows two domains.

Source: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks" (JMLR 17(59), arXiv 1505.07818), figure 4a.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, require_share

SOURCE, TARGET = 0, 1
NORMS = {"none": 0, "joint": 1, "domain": 2}  # sets of statistics


class DomainNorm(nn.Module):
    """Batch normalisation (B, C, H, W) with running statistics of its own for each domain, scale and shift shared.

    The domains' batches go through it one after the other (AdaBN: Li et al. 2016, arXiv 1603.04779; DSBN, Chang et al.
    2019, has scale and shift of their own too). With one set it is ordinary: a batch of both mixes their statistics.
    """

    def __init__(self, channels: int, sets: int, momentum: float = 0.1):
        super().__init__()
        self.momentum = momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(sets, channels))
        self.register_buffer("running_var", torch.ones(sets, channels))

    def forward(self, x: Tensor, domain: int) -> Tensor:
        own = min(domain, len(self.running_mean) - 1)
        statistics = self.running_mean[own], self.running_var[own]  # views: training moves them in place
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum)


class DigitNetwork(Classifier):
    """Images (B, C, H, W) → logits (B, classes).

    Convolution 5×5 to 32, ReLU, pooling by 2; convolution 5×5 to 48, ReLU, pooling; the label head 100, 100, classes
    with ReLU. No padding: 28×28 gives 48·4·4 = 768 features. RGB digits: 128,890 parameters without norms.
    Intensities are scaled to [−1, 1].

    Args:
        spec: the images and their classes.
        norm: after each convolution, which is not in the paper. none; joint: source and target pass as one batch;
            domain: one after the other, with running statistics of their own.
        dropout: share of the features left out in training (0 in the paper).

    Raises:
        UsageError: the data has no classes, images are too small, or a setting is impossible.
    """

    own_domain: int | None = None  # whose statistics serve every image; None: the image's domain chooses
    trains_on = "source"

    def __init__(self, spec: Spec, *, norm: str = "none", dropout: float = 0.0):
        super().__init__(spec, "The network for digits")
        if norm not in NORMS:
            raise UsageError(f"model.norm is {norm!r}{did_you_mean(str(norm), NORMS)}: choose {', '.join(NORMS)}.")
        require_share(dropout=dropout)
        self.norm, self.sizes = norm, "at least 16×16"
        self.settings: dict[str, Any] = {"norm": norm, "dropout": dropout}
        if not self.takes(spec.height, spec.width):
            raise UsageError(
                f"Two convolutions of 5×5, each pooled, need images of {self.sizes}, and these are "
                f"{spec.height}×{spec.width}: choose larger ones, such as data=digits_m."
            )
        self.conv1, self.conv2 = nn.Conv2d(spec.channels, 32, 5), nn.Conv2d(32, 48, 5)
        norms = [DomainNorm(width, NORMS[norm]) if NORMS[norm] else None for width in (32, 48)]
        self.norm1, self.norm2 = norms
        self.dropout = nn.Dropout(dropout)
        height, width = (((side - 4) // 2 - 4) // 2 for side in (spec.height, spec.width))
        self.features_width = 48 * height * width
        self.label1, self.label2 = nn.Linear(self.features_width, 100), nn.Linear(100, 100)
        self.label3 = nn.Linear(100, spec.classes)

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= 16

    def maps(self, images: Tensor, domain: int = TARGET) -> Tensor:
        """The second convolution's map after its ReLU (B, 48, h, w), before it is pooled.

        Args:
            images: (B, C, H, W), intensities 0 … levels−1.
            domain: SOURCE or TARGET.
        """
        own = domain if self.own_domain is None else self.own_domain
        x = self.conv1(2 * self.scaled(images) - 1)
        x = F.max_pool2d(F.relu(x if self.norm1 is None else self.norm1(x, own)), 2)
        x = self.conv2(x)
        return F.relu(x if self.norm2 is None else self.norm2(x, own))

    def features(self, images: Tensor, domain: int = TARGET) -> Tensor:
        """What both heads are given: (B, 768) of 28×28."""
        return self.pooled(self.maps(images, domain))

    def pooled(self, maps: Tensor) -> Tensor:
        return self.dropout(F.max_pool2d(maps, 2).flatten(1))

    def hidden(self, features: Tensor) -> Tensor:
        """The label head's last hidden layer (B, 100)."""
        return F.relu(self.label2(F.relu(self.label1(features))))

    def classify(self, features: Tensor) -> Tensor:
        """Features → logits (B, classes)."""
        return self.label3(self.hidden(features))

    def forward(self, images: Tensor, domain: int = TARGET) -> Tensor:
        return self.classify(self.features(images, domain))

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The second convolution's map of target images, and the logits: what Grad-CAM looks at."""
        maps = self.maps(images)
        return maps, self.classify(self.pooled(maps))


class SourceOnly(DigitNetwork):
    """`model=source_only`: trained on the source, with its statistics for every image: the lower bound."""

    own_domain = SOURCE


class TargetTrained(DigitNetwork):
    """`model=target_trained`: trained on the target's own labels: the upper bound, which no adaptation can reach."""

    own_domain = TARGET
    trains_on = "target"


class DANN(DigitNetwork):
    """`model=dann`: beside the label head a domain head, 100 with ReLU, then one logit: is it the target?

    RGB digits of 28×28: 40,880 of the features, 88,010 of the label head, 77,001 of the domain head, together 205,891.

    Args: as of `DigitNetwork`.
    """

    trains_on = "both"

    def __init__(self, spec: Spec, *, norm: str = "none", dropout: float = 0.0):
        super().__init__(spec, norm=norm, dropout=dropout)
        self.domain1, self.domain2 = nn.Linear(self.features_width, 100), nn.Linear(100, 1)

    def features_of_both(self, source: Tensor, target: Tensor) -> Tensor:
        """Features (2B, 768) of a batch of each domain, the source's first, as `norm` wants them to be passed."""
        if self.norm == "domain":
            return torch.cat([self.features(source, SOURCE), self.features(target, TARGET)])
        return self.features(torch.cat([source, target]))

    def domain_logits(self, features: Tensor) -> Tensor:
        """Features → (B,), above 0 for the target."""
        return self.domain2(F.relu(self.domain1(features)))[:, 0]
