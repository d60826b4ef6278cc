"""The task's smallest run."""

from __future__ import annotations

from datamodules.captions.words import grammar_vocabulary, longest_sentence
from datamodules.spec import CaptionSpec
from tests.smallest import Smallest

BOTH = ("en", "fa")
WORDS = grammar_vocabulary(BOTH)
SMALLEST = Smallest(
    spec=CaptionSpec(3, 32, 48, 256, WORDS, BOTH, longest_sentence(BOTH)),
    output=lambda spec, batch: (batch, 1, len(spec.vocabulary)),
    words=[
        "data.side=32",
        "data.train_items=24",
        "data.val_items=12",
        "data.test_items=20",
        "data.unseen_items=12",
        "data.batch_size=8",
        "data.eval_batch_size=10",
    ],
    model_words={
        "show_attend_tell": ["model.hidden=8", "model.embedding=6", "model.attention=5", "model.widths=[4,5]"],
        "caption_transformer": ["model.hidden=8", "model.heads=2", "model.layers=1", "model.widths=[4,5]"],
    },
)
