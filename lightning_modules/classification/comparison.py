"""What a page that compares classifiers shows of them alone: their classes and confusions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.classification.analysis import class_figures, confusions
from lightning_modules.classification.figures import draw_matrix
from lightning_modules.classification.robustness.compared import attack_sections
from reporting.figures import save
from reporting.report import ComparedRun, Section


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """F1 by class; each run's confusion matrix; how each differs from the first run's; what attacks found."""
    names = runs[0].predictions["class_names"].tolist()
    counts = [confusions(run.predictions["label"], run.predictions["probabilities"]) for run in runs]
    sections = [Section("F1 of each class", f1_table(runs, names))]
    save_matrices(folder / "confusions.png", {run.name: found for run, found in zip(runs, counts, strict=True)}, names)
    text = "How many images of each class were taken for each."
    sections.append(Section("Confusion matrices", text, "confusions.png"))
    differences = {
        f"{run.name} − {runs[0].name}": found - counts[0] for run, found in zip(runs[1:], counts[1:], strict=True)
    }
    save_matrices(folder / "confusion_differences.png", differences, names, signed=True)
    text = "Red: more images; blue: fewer. On the diagonal red is better, elsewhere blue."
    sections.append(Section("Differences of the confusion matrices", text, "confusion_differences.png"))
    return [*sections, *attack_sections(runs, folder)]


def f1_table(runs: Sequence[ComparedRun], names: list[str]) -> str:
    columns = [class_figures(run.predictions["label"], run.predictions["probabilities"], names) for run in runs]
    lines = [f"| class | {' | '.join(run.name for run in runs)} |", "|---|" + "---:|" * len(runs)]
    for rows in zip(*columns, strict=True):
        lines.append(f"| {rows[0].name} | {' | '.join(f'{row.f1:.4f}' for row in rows)} |")
    return "\n".join(lines)


def save_matrices(path: Path, matrices: dict[str, np.ndarray], names: list[str], signed: bool = False) -> None:
    """Matrices side by side, two in a row."""
    columns = min(2, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.5 * columns, 6.3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(matrices) :]:
        axis.axis("off")
    for axis, (title, counts) in zip(axes.flat, matrices.items(), strict=False):
        draw_matrix(axis, counts, names, title, signed)
    save(figure, path)
