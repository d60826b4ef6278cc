"""What a trained network is held against, and what it looks at."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_modules.pixelrnn.stack import AutoregressiveNetwork


def independent_pixels_bits(train: np.ndarray, test: np.ndarray, levels: int) -> float:
    """Bits/dim of `test` when each sub-pixel has its own histogram over `train` and knows nothing of the others.

    Images (N, C, H, W), integers. One is added to every count, so that nothing has probability 0.
    """
    total = 0.0
    for channel, row in np.ndindex(train.shape[1:3]):
        for column in range(train.shape[3]):
            counts = np.bincount(train[:, channel, row, column], minlength=levels) + 1.0
            total -= np.log2(counts / counts.sum())[test[:, channel, row, column]].mean()
    return total / math.prod(train.shape[1:])


def nearest(images: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `images` (N, …) the index of the nearest of `among` (M, …), by Euclidean distance."""
    flat, pool = (x.reshape(len(x), -1).astype(np.float32) for x in (images, among))
    return (np.square(pool).sum(1) - 2 * flat @ pool.T).argmin(1)


def receptive_field(
    network: AutoregressiveNetwork, images: Tensor, labels: Tensor | None, row: int, column: int
) -> np.ndarray:
    """How strongly the distribution of the pixel (row, column) depends on each other pixel: (H, W), no unit.

    The mean over `images` (N, C, H, W) of the absolute gradient of the pixel's log-likelihood with respect to the
    intensities, summed over colours. Zero means: not seen at all.
    """
    intensities = images.float().requires_grad_()
    logits = network(intensities, labels)[..., row, column]
    likelihood = logits.log_softmax(1).gather(1, images[:, None, :, row, column].long())
    (gradient,) = torch.autograd.grad(likelihood.sum(), intensities)
    return gradient.abs().sum(1).mean(0).cpu().numpy()
