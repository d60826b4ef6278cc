"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 8, 12, 256, classes=5),
    output=lambda spec, batch: (batch, spec.classes),
    words=[
        "model.student_width=2",
        "model.generator_width=2",
        "model.latent=3",
        "data.batch_size=8",
        "task.module.student_steps=2",
        "task.teaching.epochs=1",
    ],
)
