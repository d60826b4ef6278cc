"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

TRANSLATION = ["model.generator_width=2", "model.generator_blocks=1", "model.discriminator_width=2"]

SMALLEST = Smallest(
    spec=ImageSpec(3, 16, 20, 256, classes=5),
    output=lambda spec, batch: (batch, spec.classes),
    words=["data.batch_size=4", "data.eval_batch_size=20", "task.module.embedded_items=0"],
    model_words={"cyclegan": TRANSLATION, "cycada": [*TRANSLATION, "task.module.source_steps=2"]},
)
