"""torchvision's VGG16, AlexNet, MobileNetV2 and ResNet-50, with published weights, a file's, or none.

Sources: Simonyan & Zisserman 2015, arXiv 1409.1556; Krizhevsky 2014, arXiv 1404.5997 (the form in one tower, not that
of 2012); Sandler et al. 2018, arXiv 1801.04381; He et al. 2016, arXiv 1512.03385.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import require_share
from lightning_modules.classification.networks.backbone import Depth, Transferred
from lightning_modules.classification.networks.pretrained import read_weights, torchvision_weights

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = 1000


class TorchvisionNetwork(Transferred):
    """Images (B, C, H, W) → logits (B, classes); the last linear layer is `head`, all before it `backbone`.

    Depths are the parts of torchvision's `features`, of a ResNet its four stages, numbered from 0; `head` is the last
    map.

    Args:
        spec: the images and their classes.
        size: pixels a side that the images are scaled to.
        weights: `none`; `imagenet`, from torch's folder of downloads or the net; or a file of torchvision's.
        train: `head`, `last` (the last part of the maps and what stands between them and the head) or `all`.
        frozen_norms: the normalisations keep their running statistics; None: where weights are given.
        dropout: between the linear layers; of a ResNet none.

    Raises:
        UsageError: the data has no classes, or a setting is impossible.
    """

    name: str
    last_linear: str  # torchvision's name of what the head takes the place of
    url: str

    def __init__(
        self,
        spec: Spec,
        *,
        size: int = 224,
        weights: str = "none",
        train: str = "all",
        frozen_norms: bool | None = None,
        dropout: float = 0.5,
    ):
        super().__init__(spec, self.name, size=size, weights=weights, train=train, frozen_norms=frozen_norms)
        require_share(dropout=dropout)
        self.backbone = self.made(dropout)
        holder, _, place = self.last_linear.rpartition(".")
        parent = self.backbone.get_submodule(holder)
        self.head = nn.Linear(getattr(parent, place).in_features, spec.classes)
        setattr(parent, place, nn.Identity())
        self.register_buffer("channel_mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("channel_sd", torch.tensor(SD)[:, None, None], persistent=False)
        self.freeze_()
        self.to(memory_format=torch.channels_last)

    def made(self, dropout: float) -> nn.Module:
        """torchvision's network, with random weights."""
        raise NotImplementedError

    def parts(self) -> list[nn.Module]:
        """What the maps come from, in order; each one's output is a depth."""
        return list(self.backbone.features)

    def rest(self, last_map: Tensor) -> Tensor:
        """What the head reads (B, D), from the last map."""
        return self.backbone.classifier(self.backbone.avgpool(last_map).flatten(1))

    def depths(self) -> list[Depth]:
        return [*range(len(self.parts())), "head"]

    def last_part(self) -> list[nn.Module]:
        own = [part for part in self.parts() if any(True for _ in part.parameters())][-1:]
        return own + ([self.backbone.classifier] if hasattr(self.backbone, "classifier") else [])

    def prepared(self, x: Tensor) -> Tensor:
        return (x - self.channel_mean) / self.channel_sd

    def maps_of(self, x: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
        found: dict[Depth, Tensor] = {}
        for number, part in enumerate(self.parts()):
            found[number] = x = part(x)
        found["head"] = x
        return [found[depth] for depth in depths]

    def forward(self, images: Tensor) -> Tensor:
        return self.map_and_logits(images)[1]

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last map, and the logits read from it: what Grad-CAM looks at."""
        (last_map,) = self.depth_maps(images, ["head"])
        return last_map, self.head(self.rest(last_map))

    def begin_(self) -> str:
        """Reads the weights; with 1,000 classes those of the head too.

        Raises:
            UsageError: they are not to be had, damaged, or another network's.
        """
        if self.weights == "none":
            return "random weights"
        found = torchvision_weights(self.url) if self.weights == "imagenet" else read_weights(Path(self.weights))
        own, prefix = self.backbone.state_dict(), f"{self.last_linear}."
        theirs = {name: tensor for name, tensor in found.tensors.items() if not name.startswith(prefix)}
        if own.keys() != theirs.keys():
            odd = sorted(own.keys() ^ theirs.keys())[0]
            raise UsageError(f"{found.source} are weights of another network than {self.name}: {odd} is in one alone.")
        for name, tensor in own.items():
            if tensor.shape != theirs[name].shape:
                raise UsageError(
                    f"{found.source} are weights of another network: {name} has the shape {tuple(theirs[name].shape)}, "
                    f"but here {tuple(tensor.shape)}."
                )
        self.backbone.load_state_dict(theirs)
        if self.spec.classes == IMAGENET:
            self.head.load_state_dict({key: found.tensors[prefix + key] for key in ("weight", "bias")})
        return found.source


class VGG16(TorchvisionNetwork):
    """`model=vgg16`: 138,357,544 parameters with 1,000 classes; its last map is pool5."""

    name, last_linear, url = "VGG16", "classifier.6", models.VGG16_Weights.IMAGENET1K_V1.url

    def made(self, dropout: float) -> nn.Module:
        return models.vgg16(dropout=dropout)


class AlexNet(TorchvisionNetwork):
    """`model=alexnet`: 61,100,840 parameters with 1,000 classes."""

    name, last_linear, url = "AlexNet", "classifier.6", models.AlexNet_Weights.IMAGENET1K_V1.url
    least_size = 64

    def made(self, dropout: float) -> nn.Module:
        return models.alexnet(dropout=dropout)


class MobileNetV2(TorchvisionNetwork):
    """`model=mobilenet_v2`: 3,504,872 parameters with 1,000 classes."""

    name, last_linear, url = "MobileNetV2", "classifier.1", models.MobileNet_V2_Weights.IMAGENET1K_V1.url

    def made(self, dropout: float) -> nn.Module:
        return models.mobilenet_v2(dropout=dropout)

    def rest(self, last_map: Tensor) -> Tensor:
        return self.backbone.classifier(last_map.mean((2, 3)))


class ResNet50(TorchvisionNetwork):
    """`model=resnet50`: 25,557,032 parameters with 1,000 classes."""

    name, last_linear, url = "ResNet-50", "fc", models.ResNet50_Weights.IMAGENET1K_V1.url

    def made(self, dropout: float) -> nn.Module:
        return models.resnet50()

    def parts(self) -> list[nn.Module]:
        return [self.backbone.layer1, self.backbone.layer2, self.backbone.layer3, self.backbone.layer4]

    def maps_of(self, x: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
        own = self.backbone
        return super().maps_of(own.maxpool(own.relu(own.bn1(own.conv1(x)))), depths)

    def rest(self, last_map: Tensor) -> Tensor:
        return last_map.mean((2, 3))
