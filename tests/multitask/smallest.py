"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 9, 8, 256, classes=5, supers=(0, 0, 1, 1, 2), groups=(0, 0, 0, 0, 1)),
    output=lambda spec, batch: (batch, spec.classes),
    words=["model.widths=[4,5]", "model.hidden=6"],
)
