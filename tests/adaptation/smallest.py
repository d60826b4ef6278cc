"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 16, 18, 256, classes=5),
    output=lambda spec, batch: (batch, spec.classes),
    words=["data.batch_size=4", "data.eval_batch_size=20", "task.module.embedded_items=0"],
)
