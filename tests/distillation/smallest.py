"""The task's smallest run."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

CACHE = TemporaryDirectory()  # of teachers: a test should not take an earlier version's
SMALLEST = Smallest(
    spec=ImageSpec(3, 8, 12, 256, classes=5),
    output=lambda spec, batch: (batch, spec.classes),
    words=[
        f"paths.cache={CACHE.name}",
        "model.student_width=2",
        "model.generator_width=2",
        "model.latent=3",
        "data.batch_size=8",
        "task.module.student_steps=2",
        "task.teaching.epochs=1",
        "task.teaching.model.filters=4",
    ],
)
