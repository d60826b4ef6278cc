"""The task's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.detection.average_precision import Judged, best_of, by_aspect, class_figures, errors, judge
from lightning_modules.detection.figures import save_angles, save_aspects, save_overlays, save_precision
from lightning_modules.detection.oracles import outer_answers, shrunk_answers
from reporting.predictions import read_predictions
from reporting.report import ComparedRun, Section

IMAGES = 6
ROWS = {
    "ap50": "AP50, area under the curve",
    "ap50_11pt": "AP50, eleven points",
    "ap75": "AP75",
    "map": "AP, mean of IoU 0.50 to 0.95",
    "recall_100": "recall of 100 detections an image, IoU 0.5",
    "rpn_recall_10": "recall of 10 proposals an image, IoU 0.5",
    "rpn_recall_50": "of 50",
    "rpn_recall_100": "of 100",
    "iou_matched_mean": "mean IoU of true detections",
    "angle_error_median_deg": "angle's error, median, degrees",
    "angle_error_p95_deg": "angle's error, 95 of 100 below, degrees",
}


def report_sections(run: Any) -> list[Section]:
    """Figures beside what upright boxes could reach, pictures with boxes, curves, the angle, kinds of error."""
    sections = []
    if (run.folder / "predictions.npz").exists():
        rows = read_predictions(run.folder)
        judged, names = judge(rows["detections"], rows["truths"]), run.module.network.spec.names
        sections += [figures_section(run, rows["truths"]), overlay_section(run, rows, names)]
        save_precision(run.folder / "figures" / "precision.png", judged, names)
        text = (
            "Left: each class alone and all together. Right: the mean over classes, against the IoU from which on a "
            f"detection counts as found.\n\n{class_table(judged, names)}"
        )
        sections.append(Section("Precision and recall", text, "figures/precision.png"))
        save_angles(run.folder / "figures" / "angles.png", judged)
        sections.append(Section("Angles", "Of true detections at IoU 0.5.", "figures/angles.png"))
        sections.append(aspect_section(run.folder / "figures", "figures/", {"this run": judged}, rows["truths"]))
        sections.append(error_section(judge(best_of(rows["detections"], rows["truths"]), rows["truths"])))
    return sections


def figures_section(run: Any, truths: list[np.ndarray]) -> Section:
    oracles = upright_best(truths).values()
    values = [
        {"ap50": np.mean([both[0] for both in class_figures(judged, 0.5).values()] or [0]),
         "ap75": np.mean([both[0] for both in class_figures(judged, 0.75).values()] or [0])}
        for judged in oracles
    ]  # fmt: skip
    lines = ["| test images | this run | true outer boxes | best upright boxes |", "|---|---:|---:|---:|"]
    for key, name in ROWS.items():
        if f"test/{key}" in run.metrics:
            others = [f"{value[key]:.3f}" if key in value else "" for value in values]
            digits = 2 if key.endswith("deg") else 3
            lines.append(f"| {name} | {run.metrics[f'test/{key}']:.{digits}f} | {others[0]} | {others[1]} |")
    text = (
        "\n\nThe last two columns are what upright boxes could reach: the true outer box of every object, which an "
        "upright detector is taught, and the upright box around the same centre that meets the object best."
    )
    return Section("Average precision", "\n".join(lines) + text)


def upright_best(truths: Sequence[np.ndarray]) -> dict[str, Judged]:
    """What upright boxes could reach."""
    oracles = {"true outer boxes": outer_answers, "best upright boxes": shrunk_answers}
    return {name: judge(answers(truths), truths) for name, answers in oracles.items()}


def aspect_section(folder: Path, path: str, found: Mapping[str, Judged], truths: Sequence[np.ndarray]) -> Section:
    """AP50 and AP75 of objects by their shape, beside those of upright boxes that know the truth."""
    rows = {name: by_aspect(judged) for name, judged in {**found, **upright_best(truths)}.items()}
    save_aspects(folder / "aspects.png", rows)
    lines = [f"| long side / short side | objects | {' | '.join(rows)} |", "|---|---:|" + "---:|" * len(rows)]
    for (low, high), (count, *_) in next(iter(rows.values())).items():
        cells = [f"{own[low, high][1]:.3f} / {own[low, high][2]:.3f}" for own in rows.values()]
        lines.append(f"| {low:g} to {high:g} | {count:,} | {' | '.join(cells)} |")
    text = "\n\nAP50 / AP75 of the objects of each shape, all classes together."
    return Section("Long and short objects", "\n".join(lines) + text, f"{path}aspects.png")


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """AP against the shape of objects, of each network's runs together: when a rotated box pays."""
    networks: dict[str, list[ComparedRun]] = {}
    for run in runs:
        networks.setdefault(run.config.choices.model, []).append(run)
    pooled = {
        name: [[row for run in own for row in run.predictions[key]] for key in ("detections", "truths")]
        for name, own in networks.items()
    }
    found = {name: judge(*both) for name, both in pooled.items()}
    return [aspect_section(folder, "", found, next(iter(pooled.values()))[1])]


def overlay_section(run: Any, rows: dict[str, Any], names: tuple[str, ...]) -> Section:
    images = run.datamodule.splits["test"].images[:IMAGES]
    path = run.folder / "figures" / "boxes.png"
    save_overlays(path, images, run.datamodule.spec.levels, names, rows)
    text = (
        f"The first {len(images)} test images: the true boxes (white), the 20 best proposals (yellow), and the best "
        "detections, as many as there are objects, with class and score: green where right at IoU 0.5, red where not."
    )
    return Section("Images", text, "figures/boxes.png")


def class_table(judged: Judged, names: tuple[str, ...]) -> str:
    found = {threshold: class_figures(judged, threshold) for threshold in (0.5, 0.75)}
    lines = ["| class | objects | AP50 | AP75 |", "|---|---:|---:|---:|"]
    for place in found[0.5]:
        count = int(((judged.true_classes == place) & ~judged.difficult).sum())
        lines.append(f"| {names[place]} | {count:,} | {found[0.5][place][0]:.3f} | {found[0.75][place][0]:.3f} |")
    return "\n".join(lines)


def error_section(judged: Judged) -> Section:
    lines = ["| of each image the best detections, as many as it has objects | count |", "|---|---:|"]
    lines += [f"| {name} | {count:,} |" for name, count in errors(judged).items()]
    text = (
        "\n\nRight: IoU 0.5 or more with an object of its class, and the first to find it. Poor box: IoU 0.1 to 0.5. "
        "Missed: objects that none of these found."
    )
    return Section("Kinds of error", "\n".join(lines) + text)
