"""The task's smallest run."""

from __future__ import annotations

from datamodules.spec import ImageSpec
from tests.smallest import Smallest

SMALLEST = Smallest(
    spec=ImageSpec(3, 8, 12, 256, classes=5),
    output=lambda spec, batch: (batch, spec.classes),
    model_words={
        "cnn": ["model.filters=4", "model.depth=3"],
        "vit": ["model.width=8", "model.depth=1"],
        "resnet": ["model.width=2", "model.depth=10"],
        "lenet5": ["model.width=0.2"],
        "efficientnet_lite0": ["model.size=32"],
        "mobilenet_v2": ["model.size=32"],
        "covid_cnn": ["model.widths=[2,3]"],
    },
)
