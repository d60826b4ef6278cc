"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import SketchSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=SketchSpec(9, 2.0, 3, ("a", "b", "c")),
    output=lambda spec, batch: (batch, 7, 6 * 20 + 3),
    words=[
        "data.train_items=40",
        "data.val_items=20",
        "data.test_items=20",
        "data.batch_size=10",
        "model.decoder=8",
        "task.module.judge_steps=2",
        "task.module.judged=3",
        "draws=2",
    ],
    model_words={"sketch_rnn": ["model.encoder=6", "model.latent=4"]},
)
