"""LeNet-5, in the form that is used today.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, section II.B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, Shown
from lightning_modules.classification.networks.maps import maps_section
from reporting.report import Section

SIDE = 32
FEATURES = (6, 16, 120, 84)


class LeNet5(Classifier):
    """Images (B, C, H, W) → logits (B, classes).

    Three 5×5 convolutions of 6, 16 and 120 maps, the first two pooled, and linear layers to 84 features and the
    classes. ReLU and max pooling stand for the paper's sigmoids and trained averages, every map sees all maps before
    it, and the last layer is linear: the form of the data-free distillation's authors. Grey images, ten classes:
    61,706 parameters, at width ½ 15,738.

    Images smaller than 32×32 are framed in black, as the paper's of 28×28 are.

    Args:
        spec: the images and their classes.
        width: multiple of the paper's features, rounded.
        normalise: give each channel mean 0 and standard deviation 1 first: see `Classifier`. The frame stays black.

    Raises:
        UsageError: the data has no classes, the width leaves a layer empty, or the images are larger than 32×32.
    """

    sizes = f"at most {SIDE}×{SIDE}"

    def __init__(self, spec: Spec, *, width: float = 1.0, normalise: bool = False):
        super().__init__(spec, "LeNet-5", normalise)
        features = [round(width * number) for number in FEATURES]
        if min(features) < 1:
            raise UsageError(f"model.width is {width}, but it must leave at least one of the paper's 6 maps.")
        if not self.takes(spec.height, spec.width):
            raise UsageError(
                f"LeNet-5 takes images of {self.sizes}, but these are {spec.height}×{spec.width}: choose model=cnn or "
                "model=resnet."
            )
        wide = [spec.channels, *features]
        self.convolutions = nn.ModuleList(nn.Conv2d(wide[layer], wide[layer + 1], 5) for layer in range(3))
        self.hidden, self.head = nn.Linear(wide[3], wide[4]), nn.Linear(wide[4], spec.classes)

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= 1 and max(height, width) <= SIDE

    def framed(self, images: Tensor) -> Tensor:
        """Images in the middle of 32×32 pixels of intensity 0, integers or floats as they were."""
        down, right = SIDE - images.shape[2], SIDE - images.shape[3]
        return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Each convolution's features after its ReLU: (B, 6, 28, 28), (B, 16, 10, 10), (B, 120, 1, 1) times `width`.

        Args:
            images: (B, C, H, W), integers or floats 0 … levels−1; H and W may differ from the spec's.

        Raises:
            UsageError: the images have other channels than the network's, or are too large.
        """
        x, found = self.scaled(images), []  # which refuses what cannot be framed
        if x.shape[2:] != (SIDE, SIDE):
            x = self.scaled(self.framed(images))
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pool2d(x, 2) if number else x))
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.maps(images)[-1].flatten(1))))

    def sections(self, shown: Shown) -> list[Section]:
        """The maps after the first two convolutions."""
        with torch.no_grad():
            maps = self.eval().maps(torch.from_numpy(shown.images).to(self.head.weight.device))[:2]
        layers = {f"conv {number}": found.float().cpu().numpy() for number, found in enumerate(maps)}
        return [maps_section(layers, shown, self.spec.levels)]
