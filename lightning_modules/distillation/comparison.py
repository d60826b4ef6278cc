"""What a page that compares runs of the task shows of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_modules.classification.comparison import comparison_sections as of_classifiers
from reporting.report import ComparedRun, Section

LEARNED_FROM = {
    "generator": "images that the generator made",
    "frozen": "images of a generator that learned nothing (a control)",
    "noise": "Gaussian noise (a control)",
    "other": "real images of another kind (a control)",
    "real": "the teacher's logits of the real training images (a control)",
    "hinton": "the teacher's logits and the labels of the real training images (a control)",
    "labels": "the labels of the real training images, without a teacher (a control)",
}


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """What each student learned from, and its share of the teacher's accuracy; then what classifiers show."""
    lines = ["| run | the student learned from | teacher | student | ratio |", "|---|---|---:|---:|---:|"]
    for run in runs:
        teacher, student, ratio = (run.metrics[f"test/{n}"] for n in ("teacher_accuracy", "accuracy", "accuracy_ratio"))
        what = LEARNED_FROM[run.config.task.module.inputs]
        lines.append(f"| {run.name} | {what} | {teacher:.2%} | {student:.2%} | {ratio:.4f} |")
    return [Section("What the students learned from", "\n".join(lines)), *of_classifiers(runs, folder)]
