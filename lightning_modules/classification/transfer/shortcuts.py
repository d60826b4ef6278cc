"""How much of a score needs the middle of the picture: the stages `metadata` and `regions`.

Maguolo & Nanni 2021, "A critic evaluation of methods for COVID-19 automatic detection from X-ray images": with the
lungs blacked out networks score alike. Here the same features, probe and folds see four regions of every image, and the
facts of the original files stand beside them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from datamodules.errors import UsageError
from datamodules.images.shared.regions import REGIONS, keep_region, region_mask
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.transfer.features import FeatureSettings, split_features
from lightning_modules.classification.transfer.folds import Machine, Point, equal_images, nested
from lightning_modules.classification.transfer.kept_svm import logits_of
from lightning_modules.classification.transfer.machines import Probe
from lightning_modules.classification.transfer.stages import SPLITS, machine_of
from reporting.intervals import Interval, auc, bootstrap
from reporting.predictions import write_predictions

log = logging.getLogger(__name__)

FILE = "regions.npz"
KEPT = 0.9  # of what the whole image is above chance
FIRED = "This score can be had without the central 56 % of the picture, where most of the lungs are."
FIRED_BORDER = "This score can be had from the outer 9.4 % of the picture alone, where no lung is."


class Forest(NamedTuple):
    """A random forest on a few facts; its settings are not searched."""

    trees: int = 200
    seed: int = 0

    def grid(self) -> list[Point]:
        return [{}]

    def decisions(self, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        return [self.fitted(x, y, {}).decision_function(others)]

    def fitted(self, x: np.ndarray, y: np.ndarray, point: Point) -> Any:
        forest = RandomForestClassifier(self.trees, class_weight="balanced", random_state=self.seed).fit(x, y)
        forest.decision_function = lambda rows: decided(forest.predict_proba(rows))
        return forest


def decided(shares: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) as decisions."""
    return shares[:, 1] - shares[:, 0] if shares.shape[1] == 2 else shares


def check_shortcuts(run: Any) -> None:
    """Raises UsageError when a stage to come has nothing to work on; before any stage runs."""
    data = run.datamodule
    if "metadata" in run.config.stages and not hasattr(data, "facts"):
        raise UsageError(
            f"data={run.config.choices.data} knows nothing of its original files: choose data=covid_xray, or leave "
            "metadata out of stages."
        )
    if "regions" in run.config.stages:
        region_mask("border", data.spec.height, data.spec.width)
        if getattr(data, "region", "whole") != "whole":
            raise UsageError(f"The stage regions cuts regions itself: leave out data.region={data.region}.")


def pooled(data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Images, labels and groups of all splits; pixel-equal images are one group where nothing else is."""
    images = np.concatenate([np.asarray(data.splits[split].images) for split in SPLITS])
    labels = np.concatenate([np.asarray(data.splits[split].labels) for split in SPLITS])
    parts = [data.groups(split) for split in SPLITS]
    return images, labels, equal_images(images) if parts[0] is None else np.concatenate(parts)


def judge(machine: Machine, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """The decisions (N, K) of every row by an outer fold that had not seen its group."""
    return logits_of(nested(machine, x, y, groups, 5, 3, seed).decisions)


def balanced(y: np.ndarray, decisions: np.ndarray, groups: np.ndarray | None) -> Interval:
    """Balanced accuracy, with an interval from resampled groups."""
    return bootstrap(mean_recall, y, decisions.argmax(1), classes=y, groups=groups, resamples=300)


def mean_recall(labels: np.ndarray, taken: np.ndarray) -> float:
    """Balanced accuracy of labels and classes (N,), every class there; scikit-learn's takes a bootstrap seconds."""
    return float(np.mean(np.bincount(labels, labels == taken) / np.bincount(labels)))


def run_metadata(run: Any) -> None:
    """What the original files' width, height, bytes a pixel, format and mode tell, no pixel seen."""
    data, seed = run.datamodule, run.config.seed
    facts = np.concatenate([data.facts(split) for split in SPLITS])
    _, y, groups = pooled(data)
    for name, columns in (("file", slice(None)), ("size", slice(0, 2))):
        decisions = judge(Forest(seed=seed), facts[:, columns], y, groups, seed)
        note(run, f"metadata/{name}", y, decisions, groups)


def run_regions(network: Classifier, run: Any) -> None:
    """The probe on features of each region, and on mean and deviation of grey; leaves `regions.npz`."""
    config, data = run.config, run.datamodule
    images, y, groups = pooled(data)
    machine: Probe = replace(machine_of("probe", config), class_weight="balanced")
    grey = images.reshape(len(images), -1).astype(np.float64)
    note(
        run, "regions/grey", y, judge(machine, np.stack([grey.mean(1), grey.std(1)], 1), y, groups, config.seed), groups
    )
    left = {"label": y, "groups": np.arange(len(y)) if groups is None else groups}
    for region in REGIONS:
        seen = keep_region(images, region, data.spec.levels)
        found = split_features(
            network, {"all": seen}, replace(FeatureSettings.of(config), flip=False),
            Path(config.paths.cache).expanduser().absolute(), device=next(network.parameters()).device,
            precision=str(config.trainer.precision),
        )["all"]  # fmt: skip
        decisions = judge(machine, found, y, groups, config.seed)
        note(run, f"regions/{region}", y, decisions, groups)
        left[f"decisions_{region}"] = decisions
    write_predictions(run.folder, left, FILE)
    log.info("regions: %s", run.folder / FILE)


def note(run: Any, name: str, y: np.ndarray, decisions: np.ndarray, groups: np.ndarray | None) -> None:
    """Balanced accuracy with its interval, and of two classes the area under the ROC curve."""
    found = balanced(y, decisions, groups)
    run.metrics |= {
        f"{name}/balanced_accuracy": round(found.value, 6),
        f"{name}/balanced_accuracy/low": round(found.low, 6),
        f"{name}/balanced_accuracy/high": round(found.high, 6),
    }
    if decisions.shape[1] == 2:
        run.metrics[f"{name}/auc_roc"] = round(auc(y == 1, decisions[:, 1] - decisions[:, 0]), 6)
    log.info("%s: balanced accuracy %s", name, found)


def fires(metrics: dict[str, float], classes: int, region: str) -> bool:
    """Does a region keep `KEPT` of what the whole image is above chance, and is that above chance at all?"""
    whole, part = (metrics[f"regions/{name}/balanced_accuracy"] for name in ("whole", region))
    above = metrics["regions/whole/balanced_accuracy/low"] > 1 / classes
    return above and part - 1 / classes >= KEPT * (whole - 1 / classes)


def verdict(metrics: dict[str, float], classes: int) -> str:
    """What the figures of the regions say, in sentences."""
    whole = metrics["regions/whole/balanced_accuracy"]
    if metrics["regions/whole/balanced_accuracy/low"] <= 1 / classes:
        return f"Nothing is learned here: the balanced accuracy {whole:.3f} is not above chance, {1 / classes:.3f}."
    said = [
        text for region, text in (("no_centre", FIRED), ("border", FIRED_BORDER)) if fires(metrics, classes, region)
    ]
    if not said:
        return (
            f"This score needs the centre of the picture: without it the balanced accuracy falls from {whole:.3f} to "
            f"{metrics['regions/no_centre/balanced_accuracy']:.3f}."
        )
    return f"**{' '.join(said)}**"
