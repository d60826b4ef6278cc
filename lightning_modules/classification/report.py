"""The task's part of a run's report."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_modules.classification.analysis import (
    ClassFigures,
    class_figures,
    confident_mistakes,
    confusions,
    reliability,
)
from lightning_modules.classification.figures import save_captioned, save_matrix, save_reliability
from lightning_modules.classification.network import Classifier, Shown
from lightning_modules.classification.robustness.sections import attack_sections
from lightning_modules.classification.transfer.sections import transfer_sections
from lightning_modules.classification.transfer.stages import predictions_file
from lightning_modules.classification.transfer.two_classes import NAMES, published_name
from reporting.predictions import read_predictions
from reporting.report import Section

MISTAKES = 24
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def report_sections(network: Classifier, run: Any, shown_images: list[int]) -> list[Section]:
    """Accuracy beside published figures, and all that the predictions on the test images show."""
    note = f"\n\nThe data: {run.datamodule.note}." if run.datamodule.note else ""
    if "train/accuracy" in run.metrics:
        note = "\n\nTraining figures are of images as they were trained on, augmentation and dropout and all." + note
    table = accuracy_table(run)
    sections = [Section("Accuracy", table + note)] if table.count("\n") > 1 or note else []
    for name, whose in NAMES.items():
        if (run.folder / predictions_file(name)).exists():  # the network's, else what is learned from its features
            predictions = read_predictions(run.folder, predictions_file(name))
            sections += prediction_sections(predictions["label"], predictions["probabilities"], run, whose)
            break
    own = transfer_sections(network, run)
    if own and own[0].title.startswith("What the score"):  # which every other figure is to be read by
        sections, own = [own[0], *sections], own[1:]
    inside = network.sections(shown_of(run, shown_images)) if has_learned(run) else []
    return [*sections, *own, *attack_sections(network, run), *inside]


def has_learned(run: Any) -> bool:
    """Are the network's weights of a training? Of random ones the inside shows nothing."""
    return run.checkpoint_path is not None or run.best_path.exists() or "seconds/fit" in run.metrics


def shown_of(run: Any, numbers: list[int]) -> Shown:
    """Test images by their numbers, each with its number and class below it."""
    images, labels = run.datamodule.splits["test"]
    captions = [f"test image {number}\n{run.datamodule.class_names[labels[number]]}" for number in numbers]
    return Shown(np.array(images[numbers]), captions, run.folder)


def accuracy_table(run: Any) -> str:
    """Markdown: ours on each split, then what others published of the same data."""
    rows, metrics = [], run.metrics
    for split, name in SPLITS.items():
        if f"{split}/accuracy" in metrics:
            rows.append((f"**{name}**", metrics[f"{split}/accuracy"], metrics[f"{split}/loss"], "this run"))
    for stage, name in (("probe", "logistic regression on features"), ("svm", "support vectors on features")):
        if f"{stage}/test/accuracy" in metrics:
            rows.append((f"**test, {name}**", metrics[f"{stage}/test/accuracy"], None, "this run"))
    if "test/accuracy_tta" in metrics:
        rows.append(("**test, six views averaged**", metrics["test/accuracy_tta"], None, "this run"))
    for entry in run.config.published:
        if entry.data == run.config.choices.data and "metric" not in entry:  # with one it is of a sweep's settings
            views = "accuracy_tta" in entry.figures
            accuracy = entry.figures.accuracy_tta if views else entry.figures.accuracy
            name = SPLITS[entry.split] + (", views averaged" if views else "")
            rows.append((name, accuracy, entry.figures.get("loss"), published_name(entry)))
    if not rows:
        return "No stage of this run has a test accuracy."
    lines = ["| images | accuracy | cross-entropy, nats | |", "|---|---:|---:|---|"]
    for name, accuracy, loss, source in rows:
        lines.append(f"| {name} | {accuracy:.2%} | {'' if loss is None else f'{loss:.4f}'} | {source} |")
    return "\n".join(lines)


def prediction_sections(
    labels: np.ndarray, probabilities: np.ndarray, run: Any, whose: str = "the network"
) -> list[Section]:
    """Figures by class, the confusion matrix, the most confident mistakes, and calibration, of one classifier."""
    names, figures = run.datamodule.class_names, run.folder / "figures"
    of = "" if whose == NAMES["network"] else f"Here and in the sections down to Calibration: {whose}.\n\n"
    sections = [Section("Classes", of + class_table(class_figures(labels, probabilities, names)))]

    counts = confusions(labels, probabilities)
    save_matrix(figures / "confusion.png", counts, names)
    sections.append(Section("Confusion matrix", worst_confusions(counts, names), "figures/confusion.png"))

    if len(mistakes := confident_mistakes(labels, probabilities, MISTAKES)):
        images, taken = run.datamodule.splits["test"].images[mistakes], probabilities[mistakes].argmax(1)
        captions = [
            f"{names[label]}, taken for\n{names[wrong]} ({probabilities[number, wrong]:.0%})"
            for number, label, wrong in zip(mistakes, labels[mistakes], taken, strict=True)
        ]
        save_captioned(figures / "mistakes.png", images, captions, run.datamodule.spec.levels)
        text = "The test images it got wrong with the highest probability for the wrong class."
        sections.append(Section("Most confident mistakes", text, "figures/mistakes.png"))

    found = reliability(labels, probabilities)
    save_reliability(figures / "calibration.png", found)
    confidence, accuracy = probabilities.max(1).mean(), (probabilities.argmax(1) == labels).mean()
    text = (
        f"Mean confidence {confidence:.1%}, accuracy {accuracy:.1%}; expected calibration error {found.error:.4f}, the "
        f"mean gap between the two over {len(found.counts)} intervals of confidence. Bars below the line: too sure."
    )
    return [*sections, Section("Calibration", text, "figures/calibration.png")]


def class_table(rows: list[ClassFigures]) -> str:
    lines = ["| class | precision | recall | F1 | test images |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {r.name} | {r.precision:.4f} | {r.recall:.4f} | {r.f1:.4f} | {r.support:,} |" for r in rows]
    return "\n".join(lines)


def worst_confusions(counts: np.ndarray, names: list[str], most: int = 3) -> str:
    """The largest numbers off the diagonal, in words."""
    off = counts * (1 - np.eye(len(names), dtype=int))
    worst = [np.unravel_index(flat, off.shape) for flat in np.argsort(-off, axis=None, kind="stable")[:most]]
    told = [f"{names[row]} for {names[column]} ({off[row, column]})" for row, column in worst if off[row, column]]
    return f"Most often taken: {', '.join(told)}." if told else "No test image was taken for another class."
