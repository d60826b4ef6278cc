"""Residual networks for small images.

Sources: He et al. 2016a, "Deep Residual Learning for Image Recognition", arXiv 1512.03385; He et al. 2016b, "Identity
Mappings in Deep Residual Networks", arXiv 1603.05027 (`preactivation`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, Shown, require_least
from lightning_modules.classification.networks.initialisation import whiten_
from lightning_modules.classification.networks.maps import maps_section
from reporting.report import Section

UNITS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # of each stage, by depth
SHOWN = "After the first convolution and after each stage, what is above 0"


class ResNet(Classifier):
    """Images (B, C, H, W) → logits (B, classes).

    The usual form for 32 pixels: a 3×3 convolution of `width` in place of the paper's 7×7 with its pooling; four stages
    of basic units (two 3×3 convolutions, 2016a, figure 5 left) of widths 1, 2, 4 and 8 times `width`, each but the
    first halving the map in its first unit; the mean over the map, one linear layer. CIFAR-10, width 64: 11,173,962
    parameters at depth 18, 21,282,122 at depth 34. With `preactivation` 11,172,170 at depth 18: the widespread
    11,171,146 is of a form that leaves out the last normalisation (1,024), which the paper has.

    Kernels begin as in He et al. 2015, arXiv 1502.01852, equation 10, over the outputs.

    Args:
        spec: the images and their classes.
        depth: 10, 18 or 34 layers with weights.
        width: of the first stage.
        preactivation: normalisation and ReLU before each convolution instead of after (2016b, figure 4e).
        normalise: give each channel mean 0 and standard deviation 1 first: see `Classifier`.

    Raises:
        UsageError: the data has no classes, or a size is impossible.
    """

    sizes = "at least 1×1"

    def __init__(
        self, spec: Spec, *, depth: int = 18, width: int = 16, preactivation: bool = False, normalise: bool = False
    ):
        super().__init__(spec, "The residual network", normalise)
        if depth not in UNITS:
            raise UsageError(f"model.depth is {depth}, but it must be 10, 18 or 34.")
        require_least(1, width=width)
        kind = PreactivationUnit if preactivation else Unit
        widths = [width, *(width * 2**stage for stage in range(4))]
        self.stem, self.stem_norm = conv3(spec.channels, width), nn.BatchNorm2d(width)
        self.stages = nn.ModuleList(
            stage_of(kind, inputs, outputs, units, 1 if outputs == width else 2)
            for inputs, outputs, units in zip(widths, widths[1:], UNITS[depth], strict=False)
        )
        if preactivation:  # the stem's normalisation and ReLU serve the first unit too (2016b, appendix)
            self.stages[0][0].norm1 = nn.Identity()
        self.last_norm = nn.BatchNorm2d(widths[-1]) if preactivation else nn.Identity()
        self.head = nn.Linear(widths[-1], spec.classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # which processors multiply faster; the values are the same

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= 1

    def maps(self, images: Tensor) -> list[Tensor]:
        """The stem's features (B, width, H, W) after its ReLU, and each stage's sums (B, 1, 2, 4, 8 · width, h, w).

        Args:
            images: (B, C, H, W), integers or floats 0 … levels−1; H and W may differ from the spec's.

        Raises:
            UsageError: the images have other channels than the network's.
        """
        x = self.scaled(images).contiguous(memory_format=torch.channels_last)
        found = [F.relu(self.stem_norm(self.stem(x)))]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.map_and_logits(images)[1]

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last stage's features after their ReLU, and the logits read from their mean: what Grad-CAM looks at."""
        # After plain units the ReLU changes nothing: they end with one.
        features = F.relu(self.last_norm(self.maps(images)[-1]))
        return features, self.head(features.mean((2, 3)))

    def whiten_(self, images: Tensor) -> None:
        """First filters from training images (N, C, H, W): principal directions; the units stay as they are."""
        whiten_(self.stem, self.stem_norm, self.scaled(images))

    def sections(self, shown: Shown) -> list[Section]:
        """The maps after the stem and after each stage."""
        device = self.head.weight.device
        with torch.no_grad():
            maps = self.eval().maps(torch.from_numpy(shown.images).to(device))
        names = ["first conv", *(f"stage {number}" for number in range(1, len(maps)))]
        layers = {name: found.relu().float().cpu().numpy() for name, found in zip(names, maps, strict=True)}
        return [maps_section(layers, shown, self.spec.levels, SHOWN)]


class Unit(nn.Module):
    """relu(shortcut(x) + F(x)), F two convolutions each normalised, a ReLU between: (B, C, H, W) → (B, D, H/s, W/s).

    2016a, equations 1 and 2; where the shape changes the shortcut is a 1×1 convolution, normalised (option B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + branch)


class PreactivationUnit(nn.Module):
    """shortcut(x) + F(x), normalisation and ReLU before both convolutions of F: (B, C, H, W) → (B, D, H/s, W/s).

    2016b, equations 1 and 2 with f the identity; where the shape changes the shortcut is a 1×1 convolution of the
    activated input, without normalisation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1, self.norm2 = conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2 = conv3(outputs, outputs)
        self.shortcut = conv1(inputs, outputs, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        branch = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return branch + (x if self.shortcut is None else self.shortcut(active))


def stage_of(kind: type[Unit | PreactivationUnit], inputs: int, outputs: int, units: int, stride: int) -> nn.Sequential:
    """A stage, whose first unit changes the shape: (B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
    return nn.Sequential(kind(inputs, outputs, stride), *(kind(outputs, outputs, 1) for _ in range(units - 1)))


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)
