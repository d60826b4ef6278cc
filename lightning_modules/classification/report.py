"""The task's part of a run's report."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightning_modules.classification.analysis import (
    ClassFigures,
    class_figures,
    confident_mistakes,
    confusions,
    reliability,
)
from lightning_modules.classification.cnn import CNN
from lightning_modules.classification.figures import save_captioned, save_maps, save_matrix, save_reliability
from reporting.report import Section
from running.folder import read_predictions

MISTAKES = 24
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def report_sections(network: CNN, run: Any, shown_images: list[int]) -> list[Section]:
    """Accuracy beside published figures, and all that the predictions on the test images show."""
    note = f"\n\nThe data: {run.datamodule.note}." if run.datamodule.note else ""
    sections = [Section("Accuracy", accuracy_table(run) + note)]
    if (run.folder / "predictions.npz").exists():
        predictions = read_predictions(run.folder)
        sections += prediction_sections(predictions["label"], predictions["probabilities"], run)
    return [*sections, maps_section(network, run, shown_images)]


def accuracy_table(run: Any) -> str:
    """Markdown: ours on each split, then what others published of the same data."""
    rows, metrics = [], run.metrics
    for split, name in SPLITS.items():
        if f"{split}/accuracy" in metrics:
            rows.append((f"**{name}**", metrics[f"{split}/accuracy"], metrics[f"{split}/loss"], "this run"))
    if "test/accuracy_tta" in metrics:
        rows.append(("**test, six views averaged**", metrics["test/accuracy_tta"], None, "this run"))
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            views = "accuracy_tta" in entry.figures
            accuracy = entry.figures.accuracy_tta if views else entry.figures.accuracy
            name = SPLITS[entry.split] + (", views averaged" if views else "")
            rows.append((name, accuracy, entry.figures.get("loss"), entry.source))
    lines = ["| images | accuracy | cross-entropy, nats | |", "|---|---:|---:|---|"]
    for name, accuracy, loss, source in rows:
        lines.append(f"| {name} | {accuracy:.2%} | {'' if loss is None else f'{loss:.4f}'} | {source} |")
    text = "\n".join(lines)
    if "train/accuracy" in metrics:
        text += "\n\nTraining figures are of images as they were trained on, moved and mirrored, with dropout."
    return text


def prediction_sections(labels: np.ndarray, probabilities: np.ndarray, run: Any) -> list[Section]:
    """Figures by class, the confusion matrix, the most confident mistakes, and calibration."""
    names, figures = run.datamodule.class_names, run.folder / "figures"
    sections = [Section("Classes", class_table(class_figures(labels, probabilities, names)))]

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


def maps_section(network: CNN, run: Any, shown_images: list[int]) -> Section:
    """The features after convolutions 0, 2, 4 … of chosen test images."""
    split = run.datamodule.splits["test"]
    images, labels = np.array(split.images[shown_images]), split.labels[shown_images]
    device = next(network.parameters()).device
    with torch.no_grad():
        maps = network.eval().maps(torch.from_numpy(images).to(device))
    layers = {f"conv {number}": maps[number].float().cpu().numpy() for number in range(0, len(maps), 2)}
    captions = [
        f"test image {number}\n{run.datamodule.class_names[label]}"
        for number, label in zip(shown_images, labels, strict=True)
    ]
    path = run.folder / "figures" / "feature_maps.png"
    save_maps(path, images, captions, layers, run.datamodule.spec.levels)
    text = (
        "After the ReLU of every second convolution, the maps with the strongest mean; each is scaled to its own "
        "maximum, dark is 0. task.module.shown_images chooses the images."
    )
    return Section("Feature maps", text, "figures/feature_maps.png")
