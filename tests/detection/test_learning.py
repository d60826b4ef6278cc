"""The detector learns: six scenes by heart."""

from __future__ import annotations

import pytest
import torch

from datamodules.scenes.digit_scenes import DigitScenes
from lightning_modules.detection import Detector
from lightning_modules.detection.average_precision import judge, summary
from lightning_modules.detection.module import as_rows, objects_of


@pytest.mark.slow
def test_six_scenes_are_learnt_by_heart(tmp_path):
    data = DigitScenes(str(tmp_path), 96, background=False, train_items=6, val_items=1, test_items=1, batch_size=6)
    data.prepare_data()
    network, batch = Detector(data.spec), next(iter(data.train_dataloader()))
    objects, optimizer = objects_of(batch), torch.optim.AdamW(network.parameters(), 1e-3)
    for step in range(90):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 60 else 3e-4
        loss = sum(part.mean() for part in network.losses(batch.images, objects).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    detections, _ = network.eval().detect(batch.images)
    found = summary(
        judge([row.numpy() for row in detections], [as_rows(own).numpy() for own in objects]), data.spec.names
    )
    assert found["ap50"] > 0.95 and found["ap75"] > 0.85 and found["angle_error_median_deg"] < 5
