"""First weights that shorten training: whitening filters and identities.

Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, sections 3.2 and 3.3. There the
whitening layer is a 2×2 convolution of its own, kept as it is; here it is where training begins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOISE = 5e-4  # variance below which a direction counts as noise, of images scaled to [0, 1]


@torch.no_grad()
def whiten_(convolution: nn.Conv2d, norm: nn.BatchNorm2d, images: Tensor) -> None:
    """Makes filters of the principal directions of the images' patches, each with its negative, as far as there is
    room; the others stay as they are.

    The normalisation that follows gives each output the variance 1, the directions that hold only noise included: its
    gain begins at √(λ / (λ + NOISE)) for a direction of variance λ.

    Args:
        convolution: k×k, without bias.
        norm: the batch normalisation after it.
        images: (N, C, H, W), scaled as the network scales them.
    """
    size = convolution.kernel_size[0]
    patches = images.unfold(2, size, size).unfold(3, size, size)  # (N, C, h, w, k, k): beside each other, not all
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
    variances, directions = torch.linalg.eigh(patches.T.cov())  # in ascending order, directions as columns
    room = min(len(variances), convolution.out_channels // 2)
    chosen = directions.T.flip(0)[:room].reshape(room, *convolution.weight.shape[1:])
    variances = variances.flip(0)[:room].clamp(min=0)
    scaled = chosen / (variances + NOISE).sqrt()[:, None, None, None]
    gains = (variances / (variances + NOISE)).sqrt()
    convolution.weight[: 2 * room] = torch.cat([scaled, -scaled]).to(convolution.weight)
    norm.weight[: 2 * room] = torch.cat([gains, gains]).to(norm.weight)


@torch.no_grad()
def identity_(convolution: nn.Conv2d) -> None:
    """Makes the first filters, as many as there are inputs, pass their inputs on; the others stay as they are."""
    same = min(convolution.in_channels, convolution.out_channels)
    nn.init.dirac_(convolution.weight[:same])
