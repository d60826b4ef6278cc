"""The task's part of a run's report."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.images.shared.hierarchy import LEVELS
from lightning_modules.classification.analysis import confident_mistakes, confusions
from lightning_modules.classification.figures import save_captioned, save_matrix
from lightning_modules.classification.report import SPLITS, worst_confusions
from lightning_modules.multitask.severity import ACROSS_GROUPS, RIGHT, WITHIN_GROUP, WITHIN_SUPERCLASS
from reporting.report import Section

MISTAKES = 24
KINDS = {
    RIGHT: "right",
    WITHIN_SUPERCLASS: "within the superclass",
    WITHIN_GROUP: "within the group",
    ACROSS_GROUPS: "across groups",
}


def report_sections(run: Any) -> list[Section]:
    """Each head's accuracy beside published figures, how severe the mistakes are, group confusions, worst mistakes."""
    weights = run.config.task.module.severity
    told = "Mistakes count alike in training." if weights is None else f"In training mistakes count {weights}."
    note = f" The data: {run.datamodule.note}." if run.datamodule.note else ""
    sections = [Section("Accuracy", f"{accuracy_table(run)}\n\n{told}{note}")]
    if (run.folder / "predictions.npz").exists():
        predictions = np.load(run.folder / "predictions.npz")
        sections += [severity_section(predictions["severity"]), group_section(predictions, run)]
        sections += mistakes_sections(predictions, run)
    sections.append(Section("Groups", hierarchy_table(run)))
    return sections


def accuracy_table(run: Any) -> str:
    """Markdown: ours on each split, then what others published of the same data."""
    keys = [f"{level}_accuracy" for level in LEVELS]
    lines = ["| images | fine | superclass | group | severity of mistakes, 1 to 3 | |", "|---|---:|---:|---:|---:|---|"]
    for split, name in SPLITS.items():
        if f"{split}/{keys[0]}" in run.metrics:
            cells = [f"{run.metrics[f'{split}/{key}']:.2%}" for key in keys]
            severity = run.metrics[f"{split}/mistake_severity"]
            lines.append(f"| **{name}** | {' | '.join(cells)} | {severity:.3f} | this run |")
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            cells = [f"{entry.figures[key]:.2%}" if key in entry.figures else "" for key in keys]
            lines.append(f"| {SPLITS[entry.split]} | {' | '.join(cells)} | | {entry.source} |")
    return "\n".join(lines)


def severity_section(severity: np.ndarray) -> Section:
    """How many test images the fine head takes for something how far off."""
    counts = np.bincount(severity, minlength=len(KINDS))
    wrong = max(1, counts[1:].sum())
    lines = ["| the fine head's answer | test images | share of the mistakes |", "|---|---:|---:|"]
    for kind, name in KINDS.items():
        lines.append(f"| {name} | {counts[kind]:,} | {'' if kind == RIGHT else f'{counts[kind] / wrong:.1%}'} |")
    return Section("How severe the mistakes are", "\n".join(lines))


def group_section(predictions: Any, run: Any) -> Section:
    """The group head's confusion matrix."""
    names = run.datamodule.hierarchy.names[-1]
    counts = confusions(predictions["group_label"], predictions["group_probabilities"])
    save_matrix(run.folder / "figures" / "groups.png", counts, names)
    return Section("Group confusions", worst_confusions(counts, names), "figures/groups.png")


def mistakes_sections(predictions: Any, run: Any) -> list[Section]:
    """The fine head's surest mistakes across groups, as pictures."""
    names = run.datamodule.class_names
    labels, probabilities = predictions["fine_label"], predictions["fine_probabilities"]
    across = predictions["severity"] == ACROSS_GROUPS
    # Every image that is not such a mistake is given its own label as the answer, so that it does not come up.
    judged = np.where(across[:, None], probabilities, np.eye(probabilities.shape[1])[labels])
    if not len(mistakes := confident_mistakes(labels, judged, MISTAKES)):
        return []
    taken = probabilities[mistakes].argmax(1)
    captions = [
        f"{names[label]}, taken for\n{names[wrong]} ({p:.0%})".replace("_", " ")
        for label, wrong, p in zip(labels[mistakes], taken, probabilities[mistakes, taken], strict=True)
    ]
    images = run.datamodule.splits["test"].images[mistakes]
    save_captioned(run.folder / "figures" / "mistakes.png", images, captions, run.datamodule.spec.levels)
    text = "The test images that the fine head takes for a class of another group with the highest probability."
    return [Section("Most confident mistakes across groups", text, "figures/mistakes.png")]


def hierarchy_table(run: Any) -> str:
    """Which superclasses and classes each group has."""
    (fine, supers, groups), super_of, group_of = run.datamodule.hierarchy
    lines = ["| group | superclasses | classes |", "|---|---|---|"]
    for number, group in enumerate(groups):
        own = [place for place, found in enumerate(group_of) if found == number]
        members = dict.fromkeys(supers[super_of[place]] for place in own)
        lines.append(f"| {group} | {', '.join(members)} | {', '.join(fine[place] for place in own)} |")
    return "\n".join(lines).replace("_", " ")
