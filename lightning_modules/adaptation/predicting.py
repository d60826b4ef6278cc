"""What a network makes of many images, in evaluation mode and in pieces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

PIECE = 500  # images at a time


@torch.no_grad()
def outputs(
    make: Callable[[Tensor, int], Tensor], images: np.ndarray, domain: int, device: torch.device | str
) -> np.ndarray:
    """`make(images, domain)` of a network in evaluation mode, for images (N, C, H, W): float32 (N, …)."""
    pieces = [
        make(torch.from_numpy(np.ascontiguousarray(images[start : start + PIECE])).to(device), domain).float().cpu()
        for start in range(0, len(images), PIECE)
    ]
    return torch.cat(pieces).numpy()


def probabilities(network: nn.Module, images: np.ndarray, domain: int, device: torch.device | str) -> np.ndarray:
    """(N, classes); the network is put into evaluation mode."""
    network.eval()
    return outputs(lambda *batch: network(*batch).float().softmax(1), images, domain, device)


def predicted(network: nn.Module, images: np.ndarray, domain: int, device: torch.device | str) -> np.ndarray:
    """The classes (N,); the network is put into evaluation mode."""
    return probabilities(network, images, domain, device).argmax(1)
