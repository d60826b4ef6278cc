"""The stage `attack` of two towers: classification's, against the embeddings of the names, of seen and unseen ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from datamodules.images.shared.image import Split
from datamodules.spec import CaptionSpec, ImageSpec
from lightning_modules import attacks
from lightning_modules.classification.robustness.stage import asked_for, run_attacks
from lightning_modules.contrastive.distractor import distracted
from lightning_modules.contrastive.sentences import described
from lightning_modules.contrastive.towers import TwoTowers
from reporting.predictions import write_predictions

log = logging.getLogger(__name__)
SPLITS = ("test", "unseen")
KEPT = 8  # images with a distractor that the report shows


class ZeroShot(nn.Module):
    """Two towers as a classifier: what classification's stage and report ask of one."""

    def __init__(self, network: TwoTowers):
        super().__init__()
        self.network = network
        self.spec = as_images(network.captions)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def as_images(spec: CaptionSpec) -> ImageSpec:
    """The images alone, with the named classes."""
    return ImageSpec(*spec.shape, spec.levels, classes=len(spec.names), names=spec.names)


def view(run: Any, split: str) -> Any:
    """The run as a classifier's: images of one class each and their labels as its test split; `unseen` in a folder of
    its own. Where PGD raises the cross-entropy it raises the margin too: between logits far apart the former's
    gradient vanishes."""
    data, config = run.datamodule, run.config.copy()
    images, labels = one_class(data.splits[split])
    most = max(len(one_class(data.splits[name]).labels) for name in splits_of(run))
    spec = as_images(described(data.spec))
    like = SimpleNamespace(splits={"test": Split(images, labels)}, class_names=list(data.class_names), spec=spec)
    OmegaConf.set_struct(config, False)
    if config.task.module.defence == "none":
        config.task.module.adversarial.method = None
    names = list(config.attack.attacks)
    if "pgd" in names and "pgd_margin" not in names and config.attack.loss == "cross_entropy":
        names.insert(names.index("pgd") + 1, "pgd_margin")
        config.attack.attacks = names
    if config.attack["items"] <= most:  # a smaller split is attacked whole
        config.attack["items"] = min(config.attack["items"], len(labels))
    return replace(run, datamodule=like, config=config, folder=folder_of(run.folder, split), metrics={})


def folder_of(folder: Path, split: str) -> Path:
    """Where a run keeps what its stage left of a split."""
    return folder if split == "test" else folder / split


def one_class(split: Any) -> Split:
    """The images of a split that show one class, and their labels."""
    images, labels = split.images, np.asarray(split.labels)
    chosen = np.flatnonzero(labels >= 0)
    return Split(images if len(chosen) == len(labels) else images[chosen], labels[chosen])


def check_attack(run: Any) -> None:
    """Raises UsageError when the stage cannot work."""
    for split in splits_of(run):
        asked_for(view(run, split))


def splits_of(run: Any) -> list[str]:
    return [split for split in SPLITS if split in run.datamodule.splits]


def attack_names(network: TwoTowers, device: torch.device, run: Any) -> None:
    """Leaves `attack.npz` and, of unseen names, `unseen/attack.npz`, `distractor.npz`, and the figures `attack/…`,
    `attack/unseen/…` and `attack/distractor/…` in `run.metrics`."""
    classifier = ZeroShot(network.eval())
    for split in splits_of(run):
        log.info("attack: images of names %s", "never trained on" if split == "unseen" else "trained on")
        part = view(run, split)
        part.folder.mkdir(exist_ok=True)
        run_attacks(classifier, device, part)
        start = "attack/" if split == "test" else f"attack/{split}/"
        run.metrics |= {start + name.removeprefix("attack/"): value for name, value in part.metrics.items()}
    run.metrics |= distract(classifier, device, run)


def distract(classifier: ZeroShot, device: torch.device, run: Any) -> dict[str, float]:
    """`attack/distractor/accuracy`, and the share of answers that name what was pasted."""
    _, count = asked_for(view(run, "test"))
    images, labels, pasted = distracted(run.datamodule, count)
    levels, taken = classifier.spec.levels, []
    forward = attacks.forward_of(classifier, levels)
    for start in range(0, len(images), run.config.attack.batch_size):
        rows = slice(start, start + run.config.attack.batch_size)
        batch = torch.from_numpy(np.array(images[rows])).to(device).float() / (levels - 1)
        taken.append(attacks.judged(forward, batch).argmax(1).cpu().numpy())
    named = np.concatenate(taken)
    arrays = {"label": labels, "pasted": pasted, "taken": named, "images": images[:KEPT]}
    write_predictions(run.folder, arrays, "distractor.npz")
    found = {"accuracy": float((named == labels).mean()), "named": float((named == pasted).mean())}
    log.info("attack: distractor: %.4f right, %.4f name what was pasted", found["accuracy"], found["named"])
    return {f"attack/distractor/{name}": value for name, value in found.items()}
