"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import SeriesSpec
from tests.smallest import Smallest

RECURRENT = ["model.hidden=4", "model.attention=3", "task.module.passes=3"]
SMALLEST = Smallest(
    spec=SeriesSpec(("a", "b"), 9, 3, (1,), 4, (1.0, -2.0), (2.0, 0.5), (0.0, 0.1, 0.2)),
    output=lambda spec, batch: (batch, spec.horizon, len(spec.target)),
    words=[
        "data.window=26",
        "data.horizon=3",
        "data.batch_size=16",
        "data.eval_batch_size=64",
        "task.module.calibration_window=40",
    ],
    model_words={"bi_lstm": RECURRENT, "bi_gru": RECURRENT},
)
