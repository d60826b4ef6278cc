"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import TextSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=TextSpec("\n abc"),
    output=lambda spec, batch: (batch, 7, len(spec.tokens)),
    words=["task.module.length=20", "model.hidden=6", "model.embedding=5", "data.window=32"],
)
