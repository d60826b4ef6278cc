"""Grad-CAM: where in an image a classifier finds a class.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
(arXiv 1610.02391), equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn import functional as F

from reporting.figures import save


class Mapped(Protocol):
    """A classifier that names the map its decision is read from."""

    training: bool

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The map (B, K, h, w), and the logits (B, classes) computed from it."""


class Cams(NamedTuple):
    """Heat (B, H, W) over each image, 0 … 1, and the maximum (B,) that each was divided by; of 0 the heat is 0."""

    heat: np.ndarray
    maxima: np.ndarray


def weighted_sums(network: Mapped, images: Tensor, classes: Tensor) -> Tensor:
    """Σ_k α_k A^k (B, h, w): α_k the mean over the map of ∂y/∂A^k, y the logit of each image's class (equation 1).

    Args:
        network: in whatever mode it is to be looked at, as a rule evaluation.
        images: (B, C, H, W), intensities 0 … levels−1.
        classes: whose evidence is sought (B,).
    """
    with torch.enable_grad():
        # With a gradient of their own: the map has one then, even where every weight is frozen.
        maps, logits = network.map_and_logits(images.float().requires_grad_())
        (slopes,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps)
    return (slopes.mean((2, 3), keepdim=True) * maps).sum(1).detach()


def grad_cam(network: Mapped, images: Tensor, classes: Tensor) -> Cams:
    """The ReLU of the weighted sums (equation 2), bilinear to the image's size, each scaled by its own maximum.

    The network is put into evaluation mode, and back. Args: as of `weighted_sums`.
    """
    was_training = network.training
    network.eval()
    try:
        found = weighted_sums(network, images, classes).float().relu()
    finally:
        network.train(was_training)
    heat = F.interpolate(found[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    maxima = heat.amax((1, 2))
    heat = heat / torch.where(maxima > 0, maxima, torch.ones_like(maxima))[:, None, None]
    return Cams(heat.cpu().numpy(), maxima.cpu().numpy())


def save_cams(
    path: Path, images: np.ndarray, cams: Cams, captions: Sequence[str], levels: int, columns: int = 6
) -> None:
    """Each image (N, C, H, W), of 1 or 3 channels, above its heat; under them its caption and the heat's maximum."""
    rows, colours = -(-len(images) // columns), plt.get_cmap("inferno")
    figure, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 3.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, heat, largest, caption in zip(axes.flat, images, *cams, captions, strict=False):
        picture = np.broadcast_to(image.transpose(1, 2, 0) / (levels - 1), (*image.shape[1:], 3))
        gap = np.ones((1, image.shape[2], 3))
        axis.imshow(np.concatenate([picture, gap, colours(heat)[..., :3]]), interpolation="nearest")
        told = f"{caption}\nmaximum {largest:.2g}" if largest else f"{caption}\nno evidence: 0 all over"
        axis.text(0.5, -0.03, told, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    save(figure, path)
