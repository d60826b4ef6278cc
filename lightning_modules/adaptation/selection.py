"""Can one choose a run without target labels? Each criterion against what the test labels say, over many runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

from lightning_modules.adaptation.criteria import CRITERIA
from reporting.figures import save
from reporting.intervals import bootstrap
from reporting.report import ComparedRun, Section

FEWEST = 5  # runs of which a rank correlation says anything


def selection_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """Of each criterion the rank correlation with the target's test accuracy, and the run that it picks."""
    accuracy = np.array([run.metrics.get("test/accuracy", math.nan) for run in runs])
    if len(runs) < FEWEST or np.isnan(accuracy).any() or np.ptp(accuracy) == 0:
        return []
    found = {}
    for name, higher in CRITERIA.items():
        values = np.array([run.metrics.get(f"val/{name}", math.nan) for run in runs])
        if not np.isnan(values).any() and np.ptp(values) > 0:
            found[name] = values if higher else -values
    if not found:
        return []
    lines = ["| criterion | Spearman's rank correlation | accuracy of the run it picks |", "|---|---:|---:|"]
    for name, values in found.items():
        ranked = bootstrap(correlation, values, accuracy, classes=accuracy)
        shown = f"{ranked.value:+.2f} ({ranked.low:+.2f} … {ranked.high:+.2f})"
        lines.append(f"| {name.replace('_', ' ')} | {shown} | {accuracy[values.argmax()]:.2%} |")
    lines.append(f"| the best run (by test labels) | | {accuracy.max():.2%} |")
    lines.append(f"| a run at random | | {accuracy.mean():.2%} |")
    save_selection(folder / "selection.png", found, accuracy)
    text = f"Of {len(runs)} runs, at the end of training; in brackets 95 % intervals from resampled runs."
    return [Section("Choosing without target labels", "\n".join([text, "", *lines]), "selection.png")]


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's; 0 where one of them is the same throughout."""
    return 0.0 if min(np.ptp(first), np.ptp(second)) == 0 else float(spearmanr(first, second).statistic)


def save_selection(path: Path, criteria: dict[str, np.ndarray], accuracy: np.ndarray) -> None:
    """A scatter of each criterion, larger to the right where it promises more, against test accuracy."""
    figure, axes = plt.subplots(1, len(criteria), figsize=(3.4 * len(criteria), 3.4), squeeze=False, sharey=True)
    for axis, (name, values) in zip(axes[0], criteria.items(), strict=True):
        axis.scatter(values, accuracy, s=18)
        picked = values.argmax()
        axis.scatter(values[picked], accuracy[picked], s=70, facecolors="none", edgecolors="tab:red", label="picked")
        axis.set_xlabel(f"{'' if CRITERIA[name] else '−'}{name.replace('_', ' ')}")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("target test accuracy")
    axes[0, 0].legend()
    save(figure, path)
