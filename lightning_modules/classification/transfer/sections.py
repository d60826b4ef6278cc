"""What a report shows of features, and of what was learned from them."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from lightning_modules.classification.network import Classifier
from lightning_modules.classification.transfer.pictures import save_directions, save_grid, save_shots
from lightning_modules.classification.transfer.shortcuts import verdict
from lightning_modules.classification.transfer.shots import FILE as SHOTS
from lightning_modules.classification.transfer.shots import read_shots
from lightning_modules.classification.transfer.stages import cv_file, predictions_file
from lightning_modules.classification.transfer.two_classes import NAMES, judged_in, two_class_sections
from reporting.predictions import read_predictions
from reporting.report import Section

TITLES = {"probe": "Logistic regression on features", "svm": "Support vectors on features"}
SEEN = {
    "metadata/file": "the file alone: format, mode, size, bytes a pixel",
    "metadata/size": "width and height alone",
    "regions/grey": "mean and deviation of grey",
    "regions/whole": "the whole image",
    "regions/centre": "the centre alone, 56 % of it",
    "regions/no_centre": "all but the centre",
    "regions/border": "the outer 9.4 % alone",
}


def transfer_sections(network: Classifier, run: Any) -> list[Section]:
    """Regions first, then two classes, then each stage on features."""
    sections = []
    if "regions/whole/balanced_accuracy" in run.metrics or "metadata/file/balanced_accuracy" in run.metrics:
        sections.append(regions_section(run))
    if judged := judged_in(run):
        sections += two_class_sections(network, judged, run)
    sections += [machine_section(name, run) for name in TITLES if f"{name}/test/accuracy" in run.metrics]
    return sections + directions_section(run) + shots_section(run)


# Regions


def regions_section(run: Any) -> Section:
    """What is seen, and the balanced accuracy that it is enough for."""
    metrics, classes = run.metrics, run.datamodule.spec.classes
    lines = ["| what is seen | balanced accuracy | 95 % interval | AUC |", "|---|---:|---|---:|"]
    for name, what in SEEN.items():
        if f"{name}/balanced_accuracy" in metrics:
            value, low, high = (metrics[f"{name}/balanced_accuracy{end}"] for end in ("", "/low", "/high"))
            area = metrics.get(f"{name}/auc_roc")
            lines.append(f"| {what} | {value:.3f} | {low:.3f} … {high:.3f} | {'' if area is None else f'{area:.3f}'} |")
    said = seen = ""
    if "regions/whole/balanced_accuracy" in metrics:
        said = f"{verdict(metrics, classes)}\n\n"
        seen = "Features of the same network and the same probe see each region, what lies outside it is grey. "
    text = (
        f"{said}Five outer folds over all images, no group on both sides; chance is {1 / classes:.3f}. {seen}Intervals "
        "are of resampled groups.\n\n"
    )
    return Section("What the score needs to see", text + "\n".join(lines))


# Stages on features


def machine_section(name: str, run: Any) -> Section:
    """Test figures, the settings that the folds chose, nested cross-validation, and what it all cost."""
    get = lambda key: run.metrics.get(f"{name}/{key}")  # noqa: E731
    settings = ", ".join(f"{key} {get(key):g}" for key in ("C", "gamma") if get(key) is not None)
    rows = [
        ("test accuracy", f"{get('test/accuracy'):.2%}"),
        ("macro F1 on test images", f"{get('test/f1_macro'):.4f}"),
    ]
    if get("cv/accuracy_mean") is not None:
        where = f"nested cross-validation, {get('cv/images'):,} images, accuracy of the outer folds"
        rows.append((where, f"{get('cv/accuracy_mean'):.2%} ± {get('cv/accuracy_sd'):.2%}"))
    rows.append(
        (
            f"best mean balanced accuracy in the search's folds ({settings}); it chose them, and is no result",
            f"{get('best_inner_accuracy'):.2%}",
        )
    )
    rows.append(("images fitted to", f"{get('train/images'):,}"))
    if "seconds/features" in run.metrics:
        rows.append(("seconds for all features", f"{run.metrics['seconds/features']:.1f}"))
    rows.append(("seconds of search, and of the last fit", f"{get('seconds_search'):.1f}, {get('seconds_fit'):.2f}"))
    if name == "svm":
        rows.append(("share of images that are support vectors", f"{get('support_share'):.1%}"))
    rows.append(("labels that are not the largest probability's", str(get("disagreements"))))
    text = "\n".join(["| | |", "|---|---:|", *(f"| {what} | {value} |" for what, value in rows)])
    ends = [key for key in ("C", "gamma") if get(key) in grid_ends(run.config.get(name), key)]
    if ends:
        text += (
            f"\n\nThe chosen {' and '.join(ends)} {'lies' if len(ends) == 1 else 'lie'} at an end of the grid: a wider "
            f"one ({', '.join(f'{name}.{key}' for key in ends)}) may do better."
        )
    figure = None
    if name == "svm" and get("gamma") is not None:
        save_grid(run.folder / "figures" / "svm_grid.png", read_grid(run.folder / cv_file(name)))
        figure = "figures/svm_grid.png"
    return Section(TITLES[name], text, figure)


def grid_ends(settings: Any, key: str) -> set[float]:
    """The least and the largest value that a search tried; none where it had one alone."""
    tried = list((settings or {}).get(key, []))
    return {min(tried), max(tried)} if len(tried) > 1 else set()


def read_grid(path: Any) -> dict[tuple[float, float], float]:
    """(C, gamma) → mean balanced accuracy."""
    with open(path, newline="") as file:
        return {(float(row["C"]), float(row["gamma"])): float(row["mean"]) for row in csv.DictReader(file)}


def directions_section(run: Any) -> list[Section]:
    """The test images in the features' plane of most variance."""
    for name in reversed(TITLES):
        if (run.folder / predictions_file(name)).exists():
            kept = read_predictions(run.folder, predictions_file(name))
            if "directions" not in kept:  # of an older version
                return []
            right = kept["probabilities"].argmax(1) == kept["label"]
            save_directions(run.folder / "figures" / "features.png", kept["directions"], kept["label"], right,
                            run.datamodule.class_names)  # fmt: skip
            text = (
                "The test images in the two directions in which the features of the training images vary most, each "
                f"feature scaled to a standard deviation of 1. Ringed: taken wrongly by {NAMES[name]}, for which all "
                "directions count."
            )
            return [Section("Features in two directions", text, "figures/features.png")]
    return []


def shots_section(run: Any) -> list[Section]:
    """Test accuracy against training images of a class."""
    if not (run.folder / SHOTS).exists():
        return []
    curves: dict[str, dict[int, list[float]]] = {}
    for shot in read_shots(run.folder / SHOTS):
        curves.setdefault(shot.machine, {}).setdefault(shot.number, []).append(shot.accuracy)
    names = [NAMES[name] for name in curves]
    lines = [f"| images of a class | {' | '.join(names)} |", "|---:|" + "---:|" * len(names)]
    for number in next(iter(curves.values())):
        cells = (f"{np.mean(own[number]):.2%}{spread(own[number])}" for own in curves.values())
        lines.append(f"| {number:,} | {' | '.join(cells)} |")
    save_shots(run.folder / "figures" / "shots.png", dict(zip(names, curves.values(), strict=True)),
               run.config.choices.data)  # fmt: skip
    text = (
        "Accuracy on all test images after fitting to fewer images of each class: the mean of several draws ± their "
        "standard deviation; the band is from the least to the most. The last row has all there are (of classes of "
        "different sizes the smallest one's number).\n\n"
    )
    return [Section("How many images a class it needs", text + "\n".join(lines), "figures/shots.png")]


def spread(values: list[float]) -> str:
    return f" ± {np.std(values, ddof=1):.2%}" if len(values) > 1 else ""
