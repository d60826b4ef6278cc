"""The task: objects found in images, each with its class and the rotated box it lies in."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from datamodules.errors import UsageError
from datamodules.scenes.batches import SceneBatch
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from lightning_modules.detection.average_precision import judge, summary
from lightning_modules.detection.detector import Detector
from lightning_modules.detection.files import detect_folder, evaluate_folders, folder_named
from lightning_modules.detection.geometry.iou import rotated_iou
from lightning_modules.detection.networks.rpn import Objects
from lightning_modules.detection.report import comparison_sections, report_sections
from lightning_modules.gathering import Rows
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)
PROPOSALS = (10, 50, 100)  # so many of an image's best, whose recall is measured
SHOWN = 50  # proposals kept of each test image
SPEED_IMAGES, WARM, TIMED = 100, 20, 200  # images timed one at a time, over and over, after so many to warm up


class Detection(Task):
    """The sum of four losses: the proposal network's and the head's, of classes and of boxes.

    Logs in training `train/loss` and its parts `rpn_class`, `rpn_box`, `head_class` and `head_box`; of validation and
    test what `average_precision.summary` gives, and `rpn_recall_50`, the share of objects that one of an image's best
    50 proposals meets with IoU 0.5 or more (10 and 100 too). Difficult objects are no one's fault.

    For each image tested are kept its `detections` (D, 7): cx, cy, w, h, θ, score, class, its `truths` (T, 7): cx, cy,
    w, h, θ, class, difficult, and its best `proposals` (P, 5).

    Args:
        network: a `Detector`.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
    """

    bar = ("loss", "ap50")

    def __init__(self, network: Detector, optimizer: MakeOptimizer, scheduler: MakeScheduler):
        super().__init__(network, optimizer, scheduler)

    def measure(self, batch: SceneBatch, split: str) -> Measured:
        objects = objects_of(batch)
        if split == "train":
            parts = self.network.losses(batch.images, objects)
            losses = sum(parts.values())
            return Measured(losses.mean(), {"loss": losses, **parts})
        detections, proposals = self.network.detect(batch.images)
        values = proposal_recalls(proposals, objects)
        rows: dict[str, Rows] = {"detections": detections, "truths": [as_rows(found) for found in objects]}
        if split.startswith("test"):
            rows["proposals"] = [own[:SHOWN] for own in proposals]
        return Measured(batch.images.new_zeros((), dtype=torch.float32), values, rows)

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Rows]) -> dict[str, Any]:
        if split == "train":
            return {}
        detections, truths = ([row.numpy() for row in rows[name]] for name in ("detections", "truths"))
        found = summary(judge(detections, truths), self.network.spec.names)
        return {"ap50": 0.0, "ap75": 0.0, "map": 0.0, "ap50_11pt": 0.0, **found}

    def check_stages(self, run: Any) -> None:
        if "detect" in run.config.stages:
            if run.config.images is not None:
                folder_named(run, "images", "images=my_pictures")
            elif not run.datamodule.splits:
                raise UsageError("images is missing, and the data are not there: name a folder, images=my_pictures.")
        if "evaluate" in run.config.stages:
            folder_named(run, "truths", "truths=labelTxt")
            folder_named(run, "found", "found=detections")

    def stage_detect(self, run: Any) -> None:
        """Objects in a folder of pictures, as files: see `detect_folder`."""
        detect_folder(self.network, self.device, run)

    def stage_evaluate(self, run: Any) -> None:
        """Two folders in DOTA's form compared: see `evaluate_folders`."""
        run.metrics |= {f"evaluate/{name}": value for name, value in evaluate_folders(run).items()}

    @torch.no_grad()
    def stage_speed(self, run: Any) -> None:
        """Milliseconds an image takes from pixels to boxes, one at a time, and its multiplications: `speed/…`."""
        images = torch.from_numpy(run.datamodule.splits["test"].images[:SPEED_IMAGES].copy()).to(self.device)
        network = self.network.eval()
        times = [seconds_of(network, images[place % len(images)][None]) for place in range(WARM + TIMED)][WARM:]
        found = {f"latency_p{share}_ms": 1000 * float(np.percentile(times, share)) for share in (50, 95, 99)}
        with FlopCounterMode(display=False) as counter:
            network.detect(images[:1])
        parameters = sum(part.numel() for part in network.parameters())
        found |= {"fps": 1000 / found["latency_p50_ms"], "macs": counter.get_total_flops() // 2}
        found |= {"parameters": parameters, "memory_mb": 4 * parameters / 1e6}
        run.metrics |= {f"speed/{name}": round(value, 3) for name, value in found.items()}
        log.info("speed: %s", "  ".join(f"{name} {value:.1f}" for name, value in found.items()))

    def report(self, run: Any) -> list[Section]:
        return report_sections(run)

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        return comparison_sections(runs, folder)


def objects_of(batch: SceneBatch) -> list[Objects]:
    """Of each image its objects, without the padding behind `counts`."""
    return [
        Objects(boxes[:count], classes[:count], difficult[:count])
        for boxes, classes, difficult, count in zip(
            batch.boxes, batch.classes, batch.difficult, batch.counts.tolist(), strict=True
        )
    ]


def seconds_of(network: Detector, image: Tensor) -> float:
    """Wall clock of the detections in one image; copying them to the CPU waits for a GPU's work."""
    started = time.perf_counter()
    network.detect(image)[0][0].cpu()
    return time.perf_counter() - started


def as_rows(found: Objects) -> Tensor:
    """An image's objects (T, 7): cx, cy, w, h, θ, class, difficult."""
    parts = [found.boxes, found.classes[:, None].to(found.boxes), found.difficult[:, None].to(found.boxes)]
    return torch.cat(parts, 1)


def proposal_recalls(proposals: Sequence[Tensor], objects: Sequence[Objects]) -> dict[str, Ratio]:
    """How many objects that are not difficult one of the best so many proposals meets, and how many there are."""
    met: dict[int, list[Tensor]] = {count: [] for count in PROPOSALS}
    for own, found in zip(proposals, objects, strict=True):
        iou = rotated_iou(found.boxes[~found.difficult].float(), own.float())
        for count in PROPOSALS:
            hits = (iou[:, :count] >= 0.5).any(1) if iou.shape[1] else iou.new_zeros(len(iou), dtype=torch.bool)
            met[count].append(hits.sum())
    below = torch.stack([(~found.difficult).sum() for found in objects])
    return {f"rpn_recall_{count}": Ratio(torch.stack(hits), below) for count, hits in met.items()}
