"""Translated images: of a whole split, their figures, and the same digits at several times of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.files import whole_file
from lightning_modules.adaptation.bounds import bounds_of
from lightning_modules.adaptation.distances import mean_kernel_distance
from lightning_modules.adaptation.network import TARGET
from lightning_modules.adaptation.predicting import outputs
from lightning_modules.adaptation.translation.cyclegan import CycleGAN

COMPARED = 1000  # test images that figures of translations are of
FOLLOWED = 10  # validation digits whose translations are kept over a training


def translate(network: CycleGAN, images: Tensor, seed: int = 0) -> Tensor:
    """G(x) in [−1, 1] of intensities (B, C, H, W); of the same z for the same seed."""
    return network.to_target(network.scaled(images), network.to_target.draw(images, seed))


def translations(network: CycleGAN, images: np.ndarray, device: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Of source images (N, C, H, W) their translations and these translated back, `made` and `back`, in [−1, 1]."""
    made = outputs(lambda batch, _: translate(network, batch, seed), images, TARGET, device)
    back = outputs(lambda batch, _: network.to_source(batch), made, TARGET, device)
    return {"made": made, "back": back}


def as_uint8(x: np.ndarray, levels: int) -> np.ndarray:
    """[−1, 1] → intensities."""
    return np.rint((np.clip(x, -1, 1) + 1) / 2 * (levels - 1)).astype(np.uint8)


def as_range(images: np.ndarray, levels: int) -> np.ndarray:
    """Intensities → [−1, 1]."""
    return (2 * (np.asarray(images, np.float32) / (levels - 1)) - 1).astype(np.float32)


def translation_figures(module: Any) -> dict[str, float]:
    """Of source test images: `cycle_l1` = mean |F(G(x)) − x|; with noise `diversity`; with a labeller
    `semantic_agreement`."""
    network, (images, labels) = module.network, module.data.splits["source_test"]
    images, labels, levels = images[:COMPARED], labels[:COMPARED], module.network.spec.levels
    found = translations(network, images, module.device)
    figures = {"cycle_l1": float(np.abs(found["back"] - as_range(images, levels)).mean())}
    if network.to_target.noise:
        other = translations(network, images, module.device, seed=1)
        figures["diversity"] = float(np.abs(found["made"] - other["made"]).mean())
    if hasattr(network, "labeller"):
        logits = outputs(lambda batch, _: network.label_logits(batch), found["made"], TARGET, module.device)
        figures["semantic_agreement"] = float((logits.argmax(1) == labels).mean())
    return figures


def bound_figures(module: Any, run: Any) -> dict[str, float]:
    """By the network trained on the target's labels: `label_kept`, its accuracy on translated source test images with
    the source's labels, and `kernel_distance_own_features` of these from the target's, in its last hidden layer."""
    judge, data = bounds_of(module.classifier, run)["target"], run.datamodule
    images, labels = (part[:COMPARED] for part in data.splits["source_test"])
    made = as_uint8(translations(module.network.eval(), images, module.device)["made"], module.network.spec.levels)
    hidden = [
        outputs(lambda *batch: judge.hidden(judge.features(*batch)), pictures, TARGET, module.device)
        for pictures in (made, data.splits["target_test"].images)
    ]
    logits = outputs(judge, made, TARGET, module.device)
    return {
        "label_kept": float((logits.argmax(1) == labels).mean()),
        "kernel_distance_own_features": mean_kernel_distance(*hidden),
    }


def snapshots_of(folder: Path) -> list[tuple[int, np.ndarray]]:
    """(batches done, translations uint8 (N, C, H, W)) of a run, the first first."""
    files = sorted((folder / "snapshots").glob("[0-9]*.npy"), key=lambda path: int(path.stem))
    return [(int(path.stem), np.load(path)) for path in files]


def save_snapshot(module: Any, most: int) -> None:
    """Keeps what G makes of the same validation digits, at most so many times, evenly over the training."""
    folder = Path(module.trainer.default_root_dir) / "snapshots"
    done = [number for number, _ in snapshots_of(folder.parent) if number < module.batches_done]
    if module.part_done * most < len(done) + 1 and module.part_done < 1:
        return
    images = module.data.splits["source_val"].images[:FOLLOWED]
    made = translations(module.network, images, module.device)["made"]
    with whole_file(folder / f"{module.batches_done}.npy") as unfinished:
        np.save(unfinished, as_uint8(made, module.network.spec.levels))
