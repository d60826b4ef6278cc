"""Test-time augmentation: the mean of what a network says of several views of each image."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def view_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, classes) in float32: the mean over an image and its mirror image, half of it from the image where it
    is, a quarter each from it moved by a pixel up and left, and down and right (edges reflected): six passes.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.5.
    """
    height, width = images.shape[2:]
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")

    def both(views: Tensor) -> Tensor:
        return (network(views).float() + network(views.flip(-1)).float()) / 2

    moved = both(padded[..., :height, :width]) + both(padded[..., 2:, 2:])
    return both(images.float()) / 2 + moved / 4
