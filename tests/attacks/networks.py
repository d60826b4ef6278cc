"""A small network of the digits, and linear ones whose best perturbation is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Trained(NamedTuple):
    """A network of images in [0, 1], and test images that it names rightly."""

    network: nn.Module
    images: Tensor
    labels: Tensor

    def first(self, count: int) -> Trained:
        return Trained(self.network, self.images[:count], self.labels[:count])

    def double(self) -> Trained:
        """In float64, where the order of sums hardly counts."""
        network = small_network()
        network.load_state_dict(self.network.state_dict())
        return Trained(network.eval().double(), self.images.double(), self.labels)


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def fitted(network: nn.Module, images: Tensor, labels: Tensor, steps: int = 150) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,), generator=generator)
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def linear(classes: int, seed: int = 0, dims: tuple[int, int, int] = (1, 8, 8), low: float = 0.0, high: float = 1.0):
    """A linear network in float64, its weights (classes, d), and 200 images in [low, high] with the labels it gives."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(dims[0] * dims[1] * dims[2], classes).double()
    weights = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    layer.weight.data.copy_(weights)
    images = low + (high - low) * torch.rand(200, *dims, generator=generator, dtype=torch.float64)
    # The boundary goes through the middle of the images, so that margins are small enough to be crossed inside the box.
    layer.bias.data.copy_(-(images.flatten(1).mean(0) @ weights.T))
    network = nn.Sequential(nn.Flatten(), layer)
    with torch.no_grad():
        labels = network(images).argmax(1)
    return network, weights, images, labels
