"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import SceneSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=SceneSpec(3, 32, 40, 256, 2, ("a", "b"), boxes=3),
    output=lambda spec, batch: (batch, 3 * sum(-(-spec.height // s) * -(-spec.width // s) for s in (4, 8, 16))),
    words=[
        "data.side=32",
        "data.train_items=8",
        "data.val_items=4",
        "data.test_items=6",
        "data.batch_size=4",
        "model.widths=[4,5,6]",
        "model.channels=8",
        "model.hidden=8",
        "model.rpn.before=20",
        "model.rpn.proposals=15",
    ],
)
