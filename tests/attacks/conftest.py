"""The digits, and a network trained on them in a second."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.images.digits import Digits
from lightning_modules.attacks import succeeded
from tests.attacks.networks import Trained, fitted, small_network


@pytest.fixture(scope="session")
def splits() -> dict[str, tuple[Tensor, Tensor]]:
    """Train and test digits as floats in [0, 1]."""
    made = Digits().load_splits()
    return {
        name: (torch.from_numpy(split.images).float() / 16, torch.from_numpy(split.labels))
        for name, split in made.items()
    }


@pytest.fixture(scope="session")
def digits(splits) -> Trained:
    torch.manual_seed(0)
    network = fitted(small_network(), *splits["train"])
    images, labels = splits["test"]
    right = ~succeeded(network, images, labels)
    assert right.float().mean() > 0.9
    return Trained(network, images[right][:256], labels[right][:256])
