"""What the four networks share: the mask-A first layer, residual layers, and the softmax head (section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, Spec, require_images
from lightning_modules.pixelrnn.masked import MaskedConv2d, colour_groups

LOGITS_AT_ONCE = 2**24  # 64 MB in float32
ON_A_GPU = 2**27  # of them there, where each piece costs a hundred launches


class AutoregressiveNetwork(nn.Module):
    """p(x) = Π p(sub-pixel | sub-pixels before it), rows top to bottom, pixels left to right, channels in order.

    A first convolution with mask A gives 2h features; each layer maps 2h features to 2h features and never sees
    ahead; the head is ReLU, 1×1, ReLU, 1×1 (mask B) and gives the logits.

    Args:
        spec: the images' channels and levels. Their height and width do not matter to the network.
        make_layer: gives one layer, a module (B, 2h, H, W) → (B, 2h, H, W); called `layers` times.
        hidden: h, at least one feature per colour channel.
        layers: how many layers follow the first convolution; 0 or more.
        output_maps: features between the head's two convolutions; None: 2h.
        head_gain: by how much faster the head's last weights learn, above 0 (1 in the paper); see `MaskedConv2d`.
        first_kernel: size of the first convolution, odd (7 in the paper).
        residual: add each layer's output to its input.
        skip: add a 1×1 convolution of each layer's output to the head's input.
        conditional: learn a bias for each class in each layer, added to the layer's input (Gated PixelCNN, arXiv
            1606.05328, equation 4); `forward` then needs the images' labels.
        dropout: probability with which an element of a layer's output is zeroed in training (not in the paper).
        gradient_checkpointing: form each layer's activations again in the backward pass instead of keeping them.

    Raises:
        UsageError: the spec is not of images, or a size is impossible.
    """

    def __init__(
        self,
        spec: Spec,
        make_layer: Callable[[], nn.Module],
        *,
        hidden: int,
        layers: int,
        output_maps: int | None = None,
        head_gain: float = 1.0,
        first_kernel: int = 7,
        residual: bool = True,
        skip: bool = False,
        conditional: bool = False,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        spec = require_images(spec, type(self).__name__)
        check_sizes(spec, hidden=hidden, layers=layers, output_maps=output_maps, dropout=dropout)
        check_odd(first_kernel=first_kernel)
        if not 0 < head_gain < math.inf:
            raise UsageError(f"model.head_gain is {head_gain}, but it must be a number above 0 (1: as in the paper).")
        if conditional and not layers:
            raise UsageError("model.conditional=true needs layers to be conditional in: model.layers is 0.")
        if conditional and not spec.classes:
            raise UsageError("model.conditional=true needs labels, and this data has none: choose data with classes.")
        channels, output_maps = spec.channels, output_maps or 2 * hidden
        self.spec, self.residual, self.gradient_checkpointing = spec, residual, gradient_checkpointing
        self.first = MaskedConv2d(channels, 2 * hidden, first_kernel, "A", channels)
        self.layers = nn.ModuleList(make_layer() for _ in range(layers))
        self.skips = nn.ModuleList(
            MaskedConv2d(2 * hidden, 2 * hidden, 1, "B", channels) for _ in range(layers if skip else 0)
        )
        self.class_biases = nn.ModuleList(
            nn.Embedding(spec.classes, 2 * hidden) for _ in range(layers if conditional else 0)
        )
        for biases in self.class_biases:
            nn.init.zeros_(biases.weight)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(2 * hidden, output_maps, 1, "B", channels),
            nn.ReLU(),
            MaskedConv2d(output_maps, channels * spec.levels, 1, "B", channels, gain=head_gain),
        )

        groups = colour_groups(output_maps, channels)
        self.maps_seen = [int((groups <= colour).sum()) for colour in range(channels)]  # by the logits of each colour

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Intensities (B, C, H, W), integer or floating, 0 … levels−1 → the head's input (B, 2h, H, W).

        `labels` (B,) matter to a conditional network alone.
        """
        if self.class_biases and labels is None:
            raise UsageError("This network is conditional: give the images' labels.")
        x = self.first(images.to(self.first.weight.dtype) * (2 / (self.spec.levels - 1)) - 1)
        x = x.contiguous(memory_format=torch.channels_last)  # the layers' products read all features of a pixel
        to_head = 0
        for number, layer in enumerate(self.layers):
            into = x + self.class_biases[number](labels)[:, :, None, None] if self.class_biases else x
            if self.gradient_checkpointing and self.training:
                update = checkpoint(layer, into, use_reentrant=False)
            else:
                update = layer(into)
            update = self.dropout(update)
            x = x + update if self.residual else update
            if self.skips:
                to_head = to_head + self.skips[number](update)
        return x + to_head

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, 2h, H, W) → unnormalised log-probabilities (B, levels, C, H, W)."""
        out = self.head(features)
        return out.unflatten(1, (self.spec.channels, self.spec.levels)).transpose(1, 2)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Intensities (B, C, H, W), integer or floating, 0 … levels−1 → logits (B, levels, C, H, W)."""
        return self.logits(self.features(images, labels))

    def nats(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """−ln p of each sub-pixel given those before it: integers (B, C, H, W) → same.

        The same as `sub_pixel_nats(self(images), images)`, without the products that the head's mask leaves out, and in
        pieces: the logits of a hundred CIFAR-10 images would take more memory than all the rest. Where one piece does
        not do, each one's logits are formed anew for its backward pass; nothing in the head is drawn at random.
        """
        features = self.features(images, labels).permute(0, 2, 3, 1).flatten(0, 2)  # (B·H·W, 2h)
        targets = images.permute(0, 2, 3, 1).flatten(0, 2).long()
        limit = ON_A_GPU if features.is_cuda else LOGITS_AT_ONCE
        at_once = max(1, limit // (self.spec.channels * self.spec.levels))
        again = at_once < len(features) and torch.is_grad_enabled()
        how = {"use_reentrant": False, "preserve_rng_state": False}
        nats = [
            checkpoint(self._piece_nats, *piece, **how) if again else self._piece_nats(*piece)
            for piece in zip(features.split(at_once), targets.split(at_once), strict=True)
        ]
        return torch.cat(nats).view(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2)

    def _piece_nats(self, features: Tensor, targets: Tensor) -> Tensor:
        """Features (n, 2h) and integers (n, C) of n pixels → nats (n, C)."""
        _, first, _, last = self.head
        maps = F.relu(F.linear(F.relu(features), first.masked_weight[:, :, 0, 0], first.bias))
        levels = self.spec.levels
        of_colours = zip(
            last.masked_weight[:, :, 0, 0].split(levels),
            last.bias.split(levels),
            self.maps_seen,
            targets.unbind(1),
            strict=True,
        )
        nats = [
            F.cross_entropy(F.linear(maps[:, :seen], weight[:, :seen], bias), target, reduction="none")
            for weight, bias, seen, target in of_colours
        ]
        return torch.stack(nats, dim=1)


def sub_pixel_nats(logits: Tensor, images: Tensor) -> Tensor:
    """−ln p of each sub-pixel given those before it: logits (B, levels, C, H, W), integers (B, C, H, W) → same."""
    return F.cross_entropy(logits, images.long(), reduction="none")


def image_nats(logits: Tensor, images: Tensor) -> Tensor:
    """−ln p(x) of each image: logits (B, levels, C, H, W), integer images (B, C, H, W) → nats (B,)."""
    return sub_pixel_nats(logits, images).flatten(1).sum(1)


def check_sizes(spec: ImageSpec, *, hidden: int, layers: int, output_maps: int | None, dropout: float) -> None:
    """Raises UsageError when a network of these sizes cannot be built."""
    if hidden < spec.channels:
        raise UsageError(
            f"model.hidden is {hidden}, but images of {spec.channels} channels need at least {spec.channels}: "
            "every colour has features of its own."
        )
    if layers < 0:
        raise UsageError(f"model.layers is {layers}, but it must be 0 or more.")
    if output_maps is not None and output_maps < spec.channels:
        raise UsageError(f"model.output_maps is {output_maps}, but it must be at least {spec.channels}, or null.")
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout is {dropout}, but it must be a probability from 0 up to, but not, 1.")


def check_odd(**kernels: int) -> None:
    """Raises UsageError when a kernel has no centre."""
    for name, size in kernels.items():
        if size < 1 or size % 2 == 0:
            raise UsageError(f"model.{name} is {size}, but a masked kernel needs a centre: choose an odd number.")
