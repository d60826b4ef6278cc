"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 5, 4, 7),
    output=lambda spec, batch: (batch, spec.levels, *spec.shape),
    words=["task.module.samples=4", "task.module.completions=2", "model.hidden=6", "model.layers=1"],
)
