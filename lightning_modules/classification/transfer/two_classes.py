"""What a report shows of two classes: areas, the threshold from validation images, and where the network looks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logit

from lightning_modules.classification.binary import called
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.transfer.pictures import save_curves_of_two, save_scores
from lightning_modules.classification.transfer.stages import predictions_file
from lightning_modules.grad_cam import grad_cam, save_cams
from reporting.intervals import auc, bootstrap, delong, delong_difference
from reporting.predictions import read_predictions
from reporting.report import Section

NAMES = {"network": "the network", "probe": "logistic regression on features", "svm": "support vectors on features"}
KINDS = ("true positives", "false negatives", "false positives", "true negatives")
EACH = 3  # images of each kind


class Judged(NamedTuple):
    """One classifier's test items: whether positive (N,), scores (N,), the threshold from validation items, and the
    score from which it calls an item positive by itself; its figures begin with `prefix`."""

    name: str
    labels: np.ndarray
    scores: np.ndarray
    threshold: float
    prefix: str


def judged_in(run: Any) -> list[Judged]:
    """The classifiers of a run on two classes whose figures are there."""
    found = []
    for name in NAMES:
        prefix = "test" if name == "network" else f"{name}/test"
        file = predictions_file(name)
        if f"{prefix}/threshold" in run.metrics and (run.folder / file).exists():
            kept = read_predictions(run.folder, file)
            threshold = run.metrics[f"{prefix}/threshold"]
            if name == "network":  # kept as a probability
                threshold = float(logit(min(max(threshold, 1e-7), 1 - 1e-7)))
            found.append(Judged(name, kept["label"].astype(bool), kept["score"], threshold, prefix))
    return found


def two_class_sections(network: Classifier, judged: list[Judged], run: Any) -> list[Section]:
    """Areas and thresholds with intervals, curves, scores, and of a network where it looks."""
    names, figures = run.datamodule.class_names, run.folder / "figures"
    save_curves_of_two(figures / "two_classes.png", {NAMES[j.name]: (j.labels, j.scores, j.threshold) for j in judged})
    sections = [Section(f"Is it {names[1]}?", two_class_text(judged, run), "figures/two_classes.png")]
    first = judged[0]
    save_scores(figures / "scores.png", first.labels, first.scores, first.threshold, names)
    sections.append(Section("Scores", confusion_text(first, names), "figures/scores.png"))
    if first.name == "network" and hasattr(network, "map_and_logits") and run.datamodule.spec.channels in (1, 3):
        sections += looked_at(network, first, run)
    return sections


def two_class_text(judged: list[Judged], run: Any) -> str:
    groups, metrics = run.datamodule.groups("test"), run.metrics
    lines = [
        "| classifier | AUC | 95 % interval | accuracy | accuracy at threshold | 95 % interval | sensitivity, "
        "specificity there | Brier |",
        "|---|---:|---|---:|---:|---|---|---:|",
    ]
    for own in judged:
        area = delong(own.labels, own.scores) if groups is None else resampled(auc, groups, own.labels, own.scores)
        right = (own.scores >= own.threshold) == own.labels
        share = bootstrap(lambda x: float(x.mean()), right, groups=groups)
        at = called(own.labels, own.scores, own.threshold)
        lines.append(
            f"| {NAMES[own.name]} | {area.value:.4f} | {ends(area)} | {metrics[f'{own.prefix}/accuracy']:.4f} | "
            f"{share.value:.4f} | {ends(share)} | {at.sensitivity:.3f}, {at.specificity:.3f} | "
            f"{metrics[f'{own.prefix}/brier']:.4f} |"
        )
    for entry in run.config.published:
        if entry.data == run.config.choices.data and "auc_roc" in entry.figures:
            lines.append(
                f"| {published_name(entry)} | {entry.figures.auc_roc:.3f} | | {entry.figures.accuracy:.3f} | | | | |"
            )
    said = ["The threshold is the one of the largest sensitivity + specificity on validation images (Youden's)."]
    for own in judged:
        get = lambda key, own=own: metrics[f"{own.prefix}/{key}"]  # noqa: E731
        said.append(
            f"{NAMES[own.name][0].upper()}{NAMES[own.name][1:]}: area {get('auc_roc_val'):.4f} on validation and "
            f"{get('auc_roc'):.4f} on test images; at the threshold of 90 % specificity on validation images its "
            f"sensitivity is {get('sensitivity_at_val_specificity_90'):.3f} and its specificity "
            f"{get('specificity_at_val_specificity_90'):.3f} (read off the test curve, a point that nobody could "
            f"have chosen, the sensitivity is {get('sensitivity_at_specificity_90'):.3f})."
        )
    said += [compared(judged[0], other, groups) for other in judged[1:]]
    return "\n".join(lines) + "\n\n" + " ".join(said)


def compared(first: Judged, other: Judged, groups: np.ndarray | None) -> str:
    """The difference of two areas on the same items: DeLong's test, or of groups a paired bootstrap."""
    names = f"{NAMES[first.name]} less {NAMES[other.name]}"
    if groups is None:
        gap = delong_difference(first.labels, first.scores, other.scores)
        return f"Area of {names}: {gap.value:+.4f} (z = {gap.z:.2f}, p = {gap.p:.2g}, DeLong)."
    found = resampled(lambda y, a, b: auc(y, a) - auc(y, b), groups, first.labels, first.scores, other.scores)
    return f"Area of {names}: {found.value:+.4f} ({ends(found)}, resampled groups)."


def resampled(figure: Any, groups: np.ndarray, *arrays: np.ndarray) -> Any:
    return bootstrap(figure, *arrays, classes=arrays[0], groups=groups)


def ends(interval: Any) -> str:
    return "not estimable" if math.isnan(interval.low) else f"{interval.low:.4f} … {interval.high:.4f}"


def confusion_text(own: Judged, names: list[str]) -> str:
    """Confusions at both thresholds."""
    lines = [f"| threshold | {names[0]}, right | {names[0]}, wrong | {names[1]}, right | {names[1]}, wrong |"]
    lines.append("|---|---:|---:|---:|---:|")
    for title, threshold in (("its own", 0.0), ("from validation", own.threshold)):
        positive = own.scores >= threshold
        counts = [(~positive & ~own.labels).sum(), (positive & ~own.labels).sum(), (positive & own.labels).sum(),
                  (~positive & own.labels).sum()]  # fmt: skip
        lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    return f"Of {NAMES[own.name]}; a score above 0 is a probability above ½.\n\n" + "\n".join(lines)


def looked_at(network: Classifier, own: Judged, run: Any) -> list[Section]:
    """Grad-CAM of the surest images of each kind, towards the class that was named."""
    images, names = run.datamodule.splits["test"].images, run.datamodule.class_names
    positive = own.scores >= own.threshold
    masks = (own.labels & positive, own.labels & ~positive, ~own.labels & positive, ~own.labels & ~positive)
    rows, captions = [], []
    for kind, mask in zip(KINDS, masks, strict=True):
        mine = np.flatnonzero(mask)
        mine = mine[np.argsort(-np.abs(own.scores[mine] - own.threshold), kind="stable")][:EACH]
        rows += mine.tolist()
        captions += [f"{kind[:-1]}\nimage {row}" for row in mine]
    device = next(network.parameters()).device
    chosen = torch.from_numpy(np.array(images[rows])).to(device)
    cams = grad_cam(network, chosen, torch.from_numpy(positive[rows].astype(np.int64)).to(device))
    save_cams(run.folder / "figures" / "grad_cam.png", np.array(images[rows]), cams, captions, network.spec.levels)
    text = (
        f"Grad-CAM of the class that is named at the threshold ({names[1]} is positive), of the images whose score "
        "lies farthest from it; each is scaled to its own maximum."
    )
    return [Section("Where it looks", text, "figures/grad_cam.png")]


def published_name(entry: Any) -> str:
    """Whose figures an entry of `published` has, and where they stand."""
    return f"{entry.name}: {entry.source}" if entry.get("name") else entry.source
