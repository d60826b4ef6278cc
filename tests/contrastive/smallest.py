"""The task's smallest run."""

from __future__ import annotations

from datamodules.captions.words import grammar_vocabulary, longest_sentence
from datamodules.spec import CaptionSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=CaptionSpec(3, 32, 48, 256, grammar_vocabulary(["en"]), ("en",), longest_sentence(["en"]), ("a red two", "?")),
    output=lambda spec, batch: (batch, len(spec.names)),
    words=[
        "data.side=32",
        "data.train_items=48",
        "data.val_items=24",
        "data.test_items=40",
        "data.unseen_items=24",
        "data.batch_size=16",
        "data.eval_batch_size=16",
        "task.module.adversarial.val_items=8",
    ],
    model_words={
        "tiny_clip": [
            "model.filters=4",
            "model.depth=3",
            "model.size=8",
            "model.text_width=8",
            "model.text_layers=1",
            "model.text_heads=2",
        ]
    },
)
