"""What every network that transfers shares: how it sees small images, at which depths it is read, what is frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, require_share

TRAINED = ("head", "last", "all")
HEADS = ("random", "probe")
Depth = int | str  # a block's number, or "head": the map that the published head reads
NORMS = (nn.BatchNorm2d,)


class Transferred(Classifier):
    """Images (B, C, H, W) → logits (B, classes), from a backbone that may begin with published weights.

    The images are scaled to 0 … 1, made square on the device where they lie, bicubic, and repeated to three channels if
    grey; `prepared` gives them the published range. `maps_of` computes the backbone's maps at some depths. The weights
    are read by `begin_` alone, when a training or the features begin: a checkpoint holds all of the network.

    Freezing is three things: a frozen weight has no gradient, so no optimizer's state and no decay; what is frozen is
    in evaluation mode; and with frozen norms all of the backbone's normalisations keep their running statistics,
    though their affine parameters may learn.

    Args:
        spec: the images and their classes.
        name: of the network, for messages.
        size: pixels a side that the images are scaled to.
        weights: `none`, random ones; `imagenet`, the published; or a file.
        train: `head`, `last` (the backbone's last part and the head) or `all`.
        frozen_norms: see above; None: where published weights are.

    Raises:
        UsageError: the data has no classes or other than 1 or 3 channels, or a setting is impossible.
    """

    sizes = "at least 1×1"
    least_size = 32
    backbone: nn.Module
    head: nn.Module
    default_depths: tuple[Depth, ...] = ("head",)

    def __init__(self, spec: Spec, name: str, *, size: int, weights: str, train: str, frozen_norms: bool | None):
        super().__init__(spec, name)
        if spec.channels not in (1, 3):
            raise UsageError(f"{name} takes grey or RGB images, but these have {spec.channels} channels.")
        if isinstance(size, bool) or not isinstance(size, int) or not self.least_size <= size <= 1024:
            raise UsageError(f"model.size is {size!r}, but it must be from {self.least_size} to 1024 pixels.")
        if train not in TRAINED:
            raise UsageError(
                f"model.train is {train!r}{did_you_mean(str(train), TRAINED)}: choose {', '.join(TRAINED)}."
            )
        self.size, self.weights, self.trained = size, str(weights), train
        self.frozen_norms = (self.weights != "none") if frozen_norms is None else frozen_norms

    # To be said by each network

    @abstractmethod
    def prepared(self, x: Tensor) -> Tensor:
        """RGB images (B, 3, size, size) from 0 to 1 → in the range of the published preprocessing."""

    @abstractmethod
    def maps_of(self, x: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
        """The maps (B, K, h, w) of prepared images at these depths, in their order."""

    @abstractmethod
    def depths(self) -> list[Depth]:
        """All depths there are, "head" the last."""

    @abstractmethod
    def last_part(self) -> list[nn.Module]:
        """Of the backbone what `train=last` trains."""

    @abstractmethod
    def begin_(self) -> str:
        """Reads the weights that `weights` names; says which."""

    def layers_in_order(self) -> list[nn.Module]:
        """The backbone's parts that have weights, from the images on; those of a sequence one by one."""
        parts = []
        for child in self.backbone.children():
            parts += list(child) if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child]
        return [part for part in parts if any(True for _ in part.parameters())]

    # Images

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) >= 1

    def seen(self, images: Tensor) -> Tensor:
        """What the backbone is given (B, 3, size, size): scaled, resized, repeated to RGB, prepared.

        Raises:
            UsageError: the images have other channels than the network's.
        """
        x = self.scaled(images)
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        x = self.prepared(x.expand(-1, 3, -1, -1))
        return x.contiguous(memory_format=torch.channels_last)

    def require_depths(self, depths: Sequence[Depth], key: str) -> list[Depth]:
        """The depths as a list.

        Raises:
            UsageError: there is no such depth, or none is named.
        """
        known = self.depths()
        if not isinstance(depths, (list, tuple)) or not depths:
            raise UsageError(f"{key} is {depths!r}, but it must be a list of depths, such as {key}=[head].")
        for depth in depths:
            if depth not in known:
                raise UsageError(
                    f"{key} names {depth!r}, but this network's depths are {known[0]} to {known[-2]}, head."
                )
        return list(depths)

    def depth_maps(self, images: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
        """The maps (B, K, h, w) of images (B, C, H, W), 0 … levels−1, at these depths."""
        return self.maps_of(self.seen(images), depths)

    # Freezing

    def freeze_(self) -> None:
        """Takes the gradients from what is not trained; each network calls it when it is made."""
        if self.trained != "all":
            self.backbone.requires_grad_(False)
        if self.trained == "last":
            for part in self.last_part():
                part.requires_grad_(True)

    def train(self, mode: bool = True) -> Transferred:
        super().train(mode)
        if mode:
            if self.trained != "all":
                self.backbone.eval()
            if self.trained == "last":
                for part in self.last_part():
                    part.train()
            for module in self.backbone.modules():
                if isinstance(module, NORMS):
                    module.train(not self.frozen_norms)
        return self


class LinearOnMeans(Transferred):
    """A `Transferred` network whose linear head reads the means over the maps of some depths, one after the other.

    Args:
        layers: those depths; `[head]`: the published network's.
        widths: of every depth, the channels.
        dropout: before the head.
        head_init: `random`; or `probe`, which the task fits before a training.
        others: see `Transferred`.
    """

    def finish_(self, widths: dict[Depth, int], layers: Sequence[Depth], dropout: float, head_init: str) -> None:
        """Makes the head; the backbone is there."""
        require_share(dropout=dropout)
        if head_init not in HEADS:
            raise UsageError(
                f"model.head_init is {head_init!r}{did_you_mean(str(head_init), HEADS)}: choose random or probe."
            )
        self.layers, self.head_init = self.require_depths(layers, "model.layers"), head_init
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(widths[depth] for depth in self.layers), self.spec.classes)
        self.freeze_()
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits_of(self.seen(images))

    def logits_of(self, x: Tensor) -> Tensor:
        """The logits of prepared images."""
        return self.head(self.dropout(means(self.maps_of(x, self.layers))))

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The first map that the head reads, which all it reads comes through, and the logits: for Grad-CAM."""
        maps = self.depth_maps(images, self.layers)
        first = min(range(len(maps)), key=lambda place: self.depths().index(self.layers[place]))
        return maps[first], self.head(self.dropout(means(maps)))

    @torch.no_grad()
    def set_head_(self, weight: Tensor, bias: Tensor) -> None:
        """Gives the head these weights (classes, features) and biases (classes,)."""
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)


def means(maps: Sequence[Tensor]) -> Tensor:
    """Each map's mean over its places, side by side (B, ΣK)."""
    return torch.cat([found.mean((2, 3)) for found in maps], 1)
