"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import SceneSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=SceneSpec(3, 32, 40, 256, 3, ("ground", "tree", "sky"), ignore=3),
    output=lambda spec, batch: (batch, spec.classes, spec.height, spec.width),
    words=["model.width=0.25", "data.side=32", "data.train_items=8", "data.val_items=4", "data.test_items=6",
           "data.batch_size=4", "speed_runs=2"],
)  # fmt: skip
