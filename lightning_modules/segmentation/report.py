"""The task's part of a run's report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from lightning_modules.segmentation.baselines import FILE as BASELINES
from lightning_modules.segmentation.fast_scnn import FastSCNN, enlarged
from lightning_modules.segmentation.figures import save_confusion, save_distances, save_examples, save_ious
from lightning_modules.segmentation.scores import boundary_f1, ious, mean_iou
from lightning_modules.segmentation.speed import read_speed
from reporting.intervals import bootstrap
from reporting.predictions import read_predictions
from reporting.report import Section

SHOWN = 6  # test images, the same ones whatever the run
SEED_CLAIM = "0.62 mIoU, “1.2 M parameters”, “50 MB”; its data is not named"


def report_sections(network: FastSCNN, device: torch.device, run: Any) -> list[Section]:
    """Figures beside baselines and published ones, each class, confusions, examples, videos apart, speed."""
    sections = []
    if (run.folder / "predictions.npz").exists():
        kept = read_predictions(run.folder)
        confusion = kept["confusion"]
        sections.append(Section("Mean IoU", score_table(confusion, run)))
        sections += class_sections(confusion.sum(0), kept["boundary"].sum(0), run)
        sections.append(examples_section(network, device, run))
        sections += video_sections(confusion, run)
    if (speed := read_speed(run.folder)) is not None:
        sections.append(Section("Speed", speed_table(speed, run)))
    return sections


def score_table(confusion: np.ndarray, run: Any) -> str:
    """Markdown: ours on each split, what needs no network, and what others published of the same data."""
    spec = run.datamodule.spec
    lines = ["| | mean IoU | pixel accuracy | class accuracy | boundary F1 | |", "|---|---:|---:|---:|---:|---|"]
    names = ("miou", "pixel_accuracy", "class_accuracy", "boundary_f1")
    for split, words in {"test": "test images", "val": "validation images"}.items():
        if f"{split}/miou" in run.metrics:
            found = [run.metrics.get(f"{split}/{name}") for name in names]
            cells = ["" if value is None else f"{value:.3f}" for value in found]
            lines.append(f"| **{words}** | {' | '.join(cells)} | this run |")
    if (run.folder / BASELINES).exists():
        for name, own in json.loads((run.folder / BASELINES).read_text()).items():
            cells = [f"{own[n]:.3f}" if n in own else "" for n in names]
            lines.append(f"| test images | {' | '.join(cells)} | {name.replace('_', ' ')}: no network |")
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            cells = [f"{entry.figures[n]:.3f}" if n in entry.figures else "" for n in names]
            lines.append(f"| test images | {' | '.join(cells)} | {entry.name}: {entry.source} |")
    return "\n".join(lines) + "\n\n" + score_note(confusion, spec, run)


def score_note(confusion: np.ndarray, spec: Any, run: Any) -> str:
    """What the figures are of, and what the common mistake would have made of them."""
    if not confusion.sum():
        return "No pixel of the test images is labelled: there is nothing to score."
    counted = int(np.isfinite(ious(confusion.sum(0))).sum())
    told = [
        f"From one confusion matrix over {len(confusion):,} images, each mask at its full size; the mean is over the "
        f"{counted} of {spec.classes} classes that occur."
    ]
    if len(confusion) > 1:
        found = bootstrap(lambda rows: mean_iou(rows.sum(0)), confusion)
        told.append(f"95 % interval over images, by bootstrap: {found.low:.3f} to {found.high:.3f}.")
    wrong = np.nanmean([mean_iou(own) for own in confusion])
    told.append(f"The mean of the images' own mean IoU, which is not mean IoU, would be {wrong:.3f}.")
    if "test/miou_objects" in run.metrics:
        told.append(f"Without the background: {run.metrics['test/miou_objects']:.3f}.")
    told.append(f"Classes are weighted in the loss by `{run.config.task.module.weights}`.")
    if run.datamodule.note:
        told.append(f"The data: {run.datamodule.note}.")
    return " ".join(told)


def class_sections(confusion: np.ndarray, boundary: np.ndarray, run: Any) -> list[Section]:
    """Each class's figures, as a table and bars, and what it is taken for."""
    names, figures = run.datamodule.spec.names, run.folder / "figures"
    found, each = ious(confusion), boundary_f1(boundary)
    shares = confusion.sum(1) / max(1, confusion.sum())
    save_ious(figures / "ious.png", found, shares, names)
    save_confusion(figures / "confusion.png", confusion, names)
    lines = ["| class | share of labelled pixels | IoU | boundary F1 |", "|---|---:|---:|---:|"]
    for name, *values in zip(names, shares, found, each, strict=True):
        cells = ["none" if np.isnan(value) else f"{value:.3f}" for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    told = "Each row: of a class's labelled pixels the share that is taken for each."
    return [
        Section("Classes", "\n".join(lines), "figures/ious.png"),
        Section("What is taken for what", told, "figures/confusion.png"),
    ]


def examples_section(network: FastSCNN, device: torch.device, run: Any) -> Section:
    """The same few test images in every run of the same data."""
    test, spec = run.datamodule.splits["test"], run.datamodule.spec
    rows = np.unique(np.linspace(0, len(test.images) - 1, SHOWN).round().astype(int))
    images, masks = np.array(test.images[rows]), np.array(test.masks[rows])
    network.eval()
    with torch.no_grad():
        logits = enlarged(network(torch.from_numpy(images).to(device)).float(), masks.shape[-2:])
        predicted = logits.argmax(1).cpu().numpy()
    images = enlarged(torch.from_numpy(images).float(), masks.shape[-2:]).numpy()  # where the network saw them smaller
    frames = getattr(run.datamodule, "frames", {}).get("test")
    captions = [f"test {row}" if frames is None else str(frames[row]) for row in rows]
    save_examples(run.folder / "figures" / "examples.png", images, masks, predicted, spec, captions)
    text = f"{len(rows)} test images, evenly spread over the split: not chosen."
    return Section("Images, masks, predictions", text, "figures/examples.png")


def video_sections(confusion: np.ndarray, run: Any) -> list[Section]:
    """Where images are frames of videos: each video apart, and quality against time from training."""
    data = run.datamodule
    if not hasattr(data, "parts") or len(confusion) != len(data.splits["test"].images):
        return []
    lines = ["| test video | frames | mean IoU |", "|---|---:|---:|"]
    distances, shown = data.seconds_from_training("test"), {}
    for name, rows in data.parts("test").items():
        lines.append(f"| {name} | {len(rows)} | {mean_iou(confusion[rows].sum(0)):.3f} |")
        near = rows[np.isfinite(distances[rows])]
        if len(near):
            shown[name] = distances[near], np.array([mean_iou(confusion[row]) for row in near])
    text = "\n".join(lines)
    if not shown:
        return [Section("Videos", text + "\n\nNo test video is one that was trained on.")]
    save_distances(run.folder / "figures" / "distances.png", shown)
    text += "\n\nBelow, frames of videos that training frames are of too, by their distance in time."
    return [Section("Videos", text, "figures/distances.png")]


def speed_table(speed: dict[str, Any], run: Any) -> str:
    """Frames a second by size and precision."""
    lines = ["| input | precision | GMAC | p50 | p95 | p99 | frames a second |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in speed["rows"]:
        times = [f"{row[f'latency_p{part}_ms']:.1f} ms" for part in (50, 95, 99)]
        lines.append(
            f"| {row['width']}×{row['height']} | {row['precision']} | {row['macs'] / 1e9:.3f} | {' | '.join(times)} | "
            f"{row['fps']:.0f} |"
        )
    parameters, size = run.metrics.get("speed/parameters", 0), run.metrics.get("speed/memory_mb", 0)
    return (
        "\n".join(lines) + f"\n\nOne image at a time, from pixels to classes, batch norms folded; {speed['device']}. "
        f"{parameters:,} parameters, {size:.2f} MB in float32. The seed document claims {SEED_CLAIM}."
    )
