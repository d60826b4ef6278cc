"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(1, 5, 4, 17, classes=3),
    output=lambda spec, batch: (batch, spec.classes),
    words=["model.hidden=[6,5]"],
)
