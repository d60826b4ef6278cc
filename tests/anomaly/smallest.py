"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 9, 8, 17),
    output=lambda spec, batch: (batch, *spec.shape),
    words=["model.hidden=16", "model.latent=3", "task.module.iwae_samples=3"],
)
