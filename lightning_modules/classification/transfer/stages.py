"""The stages `features`, `probe` and `svm`: a network's features, and what is learned from them.

They need no training: the network has published weights, or those of the checkpoint, or of the training before.
"""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.classification.binary import binary_figures
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.networks.backbone import Transferred
from lightning_modules.classification.transfer.features import FeatureSettings, depths_for, split_features
from lightning_modules.classification.transfer.folds import Machine, equal_images, nested, predicted, search
from lightning_modules.classification.transfer.kept_svm import (
    KeptSVM,
    find_temperature,
    probabilities,
)
from lightning_modules.classification.transfer.machines import Probe, SupportVectors, linear_head, settings_of
from reporting.predictions import write_predictions

log = logging.getLogger(__name__)

MACHINES = {"probe": Probe, "svm": SupportVectors}
SPLITS = ("train", "val", "test")


class Rows(NamedTuple):
    """Features (N, D), labels (N,) and, where something belongs together, groups (N,)."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None


def machine_of(name: str, config: Any) -> Machine:
    """The machine of a stage, as the configuration has it."""
    weight = None if config.task.module.get("class_weights", "none") == "none" else "balanced"
    return settings_of(MACHINES[name], config.get(name), class_weight=weight, seed=config.seed)


def check_settings(network: Classifier, run: Any) -> None:
    """Raises UsageError when a stage on features cannot work; before any stage runs."""
    wanted = {"features", "regions", "shots", *MACHINES} & set(run.config.stages)
    if wanted:
        depths_for(network, FeatureSettings.of(run.config).layers)
    for name in MACHINES:
        if name in wanted or "shots" in wanted or (name == "probe" and "regions" in wanted):
            machine_of(name, run.config)
    if "fit" in run.config.stages and getattr(network, "head_init", "random") == "probe":
        given = FeatureSettings.of(run.config)
        if depths_for(network, given.layers) != network.layers or given.pool != "mean":
            raise UsageError(
                f"model.head_init=probe fits the head to features of the depths that it reads: give "
                f"features.layers={as_word(network.layers)} features.pool=mean, as model.layers is."
            )


def as_word(depths: list[Any]) -> str:
    return f"[{','.join(map(str, depths))}]"


def features_of(network: Classifier, run: Any, splits: tuple[str, ...] = SPLITS) -> dict[str, np.ndarray]:
    """Each split's features, computed or found; see `split_features`."""
    config = run.config
    return split_features(
        network,
        {split: run.datamodule.splits[split].images for split in splits},
        FeatureSettings.of(config),
        Path(config.paths.cache).expanduser().absolute(),
        device=next(network.parameters()).device,
        precision=str(config.trainer.precision),
        batch_size=config.data.get("eval_batch_size", 100),
    )


def run_features(network: Classifier, run: Any, trained: bool) -> None:
    """Computes the features; says how many, and whether they are of random weights."""
    if not trained and (not isinstance(network, Transferred) or network.weights == "none"):
        log.warning("The weights are random: these are random features, a control for what pretraining gives.")
    found = features_of(network, run)
    run.metrics["features/numbers"] = int(found["train"].shape[1])
    run.metrics["features/images"] = int(sum(len(part) for part in found.values()))
    log.info(
        "features: %s numbers of each image, %s", *(f"{run.metrics[f'features/{n}']:,}" for n in ("numbers", "images"))
    )


def joined(data: Any, found: dict[str, np.ndarray], splits: tuple[str, ...]) -> Rows:
    """Several splits' rows, one after the other; the mirrored copies of training images belong with these."""
    there = [split for split in splits if split in found]
    x = np.concatenate([found[split] for split in there])
    y = np.concatenate([np.asarray(data.splits[split].labels) for split in there])
    parts = [data.groups(split) for split in there]
    groups = None if any(part is None for part in parts) else np.concatenate(parts)
    if "train" in there and "train_mirrored" in found:
        own = np.arange(len(y)) if groups is None else groups
        n = len(found["train"])  # which stands first
        x, y = np.concatenate([x, found["train_mirrored"]]), np.concatenate([y, y[:n]])
        groups = np.concatenate([own, own[:n]])
    return Rows(x, y, groups)


def fit_rows(data: Any, found: dict[str, np.ndarray]) -> tuple[Rows, bool]:
    """What is fitted to, and whether validation images are among it: not where a threshold is read from them."""
    apart = data.positive is not None and "val" in found
    return joined(data, found, ("train",) if apart else ("train", "val")), not apart


def run_machine(name: str, network: Classifier, run: Any) -> None:
    """Searches, fits and tests; leaves `<name>_predictions.npz`, `<name>_cv_results.csv`, of an SVM `svm.npz` too."""
    data, machine, seed = run.datamodule, machine_of(name, run.config), run.config.seed
    features = features_of(network, run)
    rows, with_val = fit_rows(data, features)
    started = time.perf_counter()
    found = search(machine, *rows, machine.folds, seed)
    searched = time.perf_counter()
    pipeline = machine.fitted(rows.x, rows.y, found.point)
    fitted = time.perf_counter()
    write_grid(run.folder / cv_file(name), machine, found.scores)
    metrics = {f"{name}/{key}": value for key, value in found.point.items() if value is not None}
    metrics |= {f"{name}/seconds_search": searched - started, f"{name}/seconds_fit": fitted - searched}
    metrics |= {f"{name}/train/images": len(rows.y), f"{name}/best_inner_accuracy": float(found.scores.mean(1).max())}
    temperature = find_temperature(found.decisions, rows.y) if name == "svm" else 1.0

    test, labels = features["test"].astype(np.float64), np.asarray(data.splits["test"].labels)
    decisions = pipeline.decision_function(test)
    if name == "svm":
        kept = KeptSVM.of(pipeline, temperature)
        if not np.allclose(kept.decisions(test), decisions, rtol=1e-6, atol=1e-6):
            raise RuntimeError("the SVM's own decisions are not scikit-learn's")
        kept.save(run.folder)
        metrics |= {"svm/support_share": float(kept.n_support.sum() / len(rows.y)), "svm/temperature": temperature}
    shares, taken = probabilities(decisions, temperature), pipeline.predict(test)
    metrics[f"{name}/disagreements"] = int((taken != shares.argmax(1)).sum())  # of labels and probabilities
    metrics[f"{name}/test/accuracy"] = float((taken == labels).mean())
    metrics[f"{name}/test/f1_macro"] = float(f1_score(labels, taken, average="macro"))
    if data.positive is not None:
        chosen_on = (rows.y, found.decisions)
        if not with_val:
            val = pipeline.decision_function(features["val"].astype(np.float64))
            chosen_on = (np.asarray(data.splits["val"].labels), val)
            metrics[f"{name}/val/accuracy"] = float((predicted(val) == chosen_on[0]).mean())
        found_binary = two_classes(labels, decisions, shares[:, 1], chosen_on, prior_of(rows.y, machine.class_weight))
        metrics |= {f"{name}/test/{key}": value for key, value in found_binary.items()}
    if machine.nested:
        metrics |= {f"{name}/cv/{key}": value for key, value in judged(machine, data, features, seed).items()}
    run.metrics |= {key: value if isinstance(value, int) else round(value, 6) for key, value in metrics.items()}
    left = {"label": labels, "probabilities": shares.astype(np.float32), "score": decisions}
    left |= {"directions": two_directions(rows.x, test).astype(np.float32)}
    write_predictions(run.folder, left | {"class_names": np.array(data.class_names)}, predictions_file(name))
    told = ", ".join(f"{key} {value:g}" for key, value in found.point.items() if value is not None)
    log.info("%s: accuracy %.4f on test images (%s): %s", name, metrics[f"{name}/test/accuracy"], told,
             run.folder / predictions_file(name))  # fmt: skip


def two_directions(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where `others` (m, D) lie in the plane (m, 2) in which what is fitted to, x (n, D), varies most."""
    return make_pipeline(StandardScaler(), PCA(2, random_state=0)).fit(x).transform(others)


def judged(machine: Machine, data: Any, features: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """Nested cross-validation over the splits that the data pools for it, without mirrored copies."""
    splits = tuple(split for split in data.nested_splits if split in features)
    plain = {split: features[split] for split in splits}
    rows = joined(data, plain, splits)
    groups = rows.groups
    if groups is None:
        groups = equal_images(np.concatenate([data.splits[split].images for split in splits]))
    found = nested(machine, rows.x, rows.y, groups, machine.outer_folds, machine.inner_folds, seed)
    return {
        "accuracy_mean": float(found.accuracy.mean()),
        "accuracy_sd": float(found.accuracy.std(ddof=1)),
        "balanced_accuracy_mean": float(found.balanced.mean()),
        "balanced_accuracy_sd": float(found.balanced.std(ddof=1)),
        "images": len(rows.y),
    }


def two_classes(
    labels: np.ndarray,
    scores: np.ndarray,
    shares: np.ndarray,
    chosen_on: tuple[np.ndarray, np.ndarray],
    prior: float | None,
) -> dict[str, float]:
    """See `binary_figures`; nothing, and a line in the log, where test or validation images are of one class."""
    for which, own in (("test", labels), ("validation", chosen_on[0])):
        if len(np.unique(own)) < 2:
            log.warning("All %s images are of one class: figures that tell two apart are not defined on them.", which)
            return {}
    return binary_figures(labels, scores, shares, chosen_on, cut=0.0, prior=prior)


def prior_of(labels: np.ndarray, class_weight: str | None) -> float | None:
    """ln(n_pos / n_neg) of what was fitted to, where both classes weighed alike."""
    if class_weight is None:
        return None
    counts = np.bincount(labels, minlength=2)
    return float(np.log(counts[1] / counts[0]))


def cv_file(name: str) -> str:
    return "cv_results.csv" if name == "svm" else f"cv_results_{name}.csv"


def predictions_file(name: str) -> str:
    """The file of the predictions of the `network`, the `probe` or the `svm`."""
    return "predictions.npz" if name == "network" else f"{name}_predictions.npz"


def write_grid(path: Path, machine: Machine, scores: np.ndarray) -> None:
    """Each point of the grid with its balanced accuracy in each inner fold, and their mean."""
    with whole_file(path) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*machine.grid()[0], *(f"fold_{number}" for number in range(scores.shape[1])), "mean"])
        for point, row in zip(machine.grid(), scores, strict=True):
            writer.writerow([*point.values(), *(f"{value:.6f}" for value in row), f"{row.mean():.6f}"])


def head_from_probe_(network: Transferred, run: Any) -> None:
    """Gives the head the weights of the probe fitted to the training images (Kumar et al. 2022, arXiv 2202.10054)."""
    features = features_of(network, run, ("train",))
    rows, machine = joined(run.datamodule, features, ("train",)), machine_of("probe", run.config)
    found = search(machine, *rows, machine.folds, run.config.seed)
    weight, bias = linear_head(machine.fitted(rows.x, rows.y, found.point))
    network.set_head_(torch.from_numpy(weight), torch.from_numpy(bias))
    log.info("the head begins as the probe with C %g: %.4f in its folds", found.point["C"], found.scores.mean(1).max())
