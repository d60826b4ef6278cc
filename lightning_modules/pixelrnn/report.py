"""The task's part of a run's report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.pixelrnn.analysis import independent_pixels_bits, nearest, receptive_field
from lightning_modules.pixelrnn.codec import compression_table
from lightning_modules.pixelrnn.figures import save_pixel_bits, save_receptive_fields, save_snapshots
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork
from reporting.figures import save_grids
from reporting.predictions import read_predictions
from reporting.report import Section

FIELD_IMAGES = 16  # test images over which the receptive field is averaged


def report_sections(network: AutoregressiveNetwork, run: Any) -> list[Section]:
    """Likelihood against its bounds and published figures, and every figure the run's stages left material for."""
    figures, note = run.folder / "figures", run.datamodule.note
    about = f"\n\nThe data: {note}." if note else ""
    about += "\n\nGiven each image's class." if network.class_biases else ""
    sections = [Section("Likelihood", likelihood_table(network, run) + about)]
    if (figures / "samples.png").exists():
        sections.append(Section("Samples", "Drawn by the network, beside real images.", "figures/samples.png"))
    if snapshots := snapshots_in(run.folder / "snapshots"):
        images = {step: np.load(path) for step, path in snapshots.items()}
        save_snapshots(figures / "snapshots.png", images, network.spec.levels)
        text = "Drawn while training, from the same random numbers, each time the steps had doubled."
        sections.append(Section("Samples by step", text, "figures/snapshots.png"))
    if (figures / "completions.png").exists():
        text = "The upper half of a test image given, the lower half drawn, several times."
        sections.append(Section("Completions", text, "figures/completions.png"))
    if (run.folder / "samples.npy").exists():
        sections.append(nearest_section(network, run))
    if "compress/images" in run.metrics:
        sections.append(Section("Lossless compression", compression_table(run.metrics)))
    if (run.folder / "predictions.npz").exists():
        bits = read_predictions(run.folder)["pixel_nats"] / math.log(2)
        save_pixel_bits(figures / "pixel_bits.png", bits)
        text = "Mean bits spent on each pixel of the test images, all its colours together: where the surprise is."
        sections.append(Section("Bits per pixel", text, "figures/pixel_bits.png"))
    row, column = centre(network)
    field = receptive_field_of(network, run.datamodule)
    save_receptive_fields(figures / "receptive_field.png", {run.config.choices.model: field}, row, column)
    before = row * network.spec.width + column
    seen = int((field.flat[:before] > 0).sum())
    text = (
        f"How strongly the pixel in the red square depends on every other one, from gradients of the trained network "
        f"over {FIELD_IMAGES} test images; white is not seen at all. It sees {seen} of the {before} pixels before it"
        + (" and earlier colours of its own." if network.spec.channels > 1 else ".")
    )
    return [*sections, Section("Receptive field", text, "figures/receptive_field.png")]


def likelihood_table(network: AutoregressiveNetwork, run: Any) -> str:
    """Markdown: ours on each split, the two bounds that need no network, and what others published."""
    spec, metrics = network.spec, run.metrics
    train, test = training_images(run.datamodule), np.asarray(run.datamodule.splits["test"].images)
    to_nats = spec.dims * math.log(2)
    independent = independent_pixels_bits(train, test, spec.levels)
    rows = [("uniform guess", math.log2(spec.levels), ""), ("independent pixels, test", independent, "")]
    for split in ("train", "val", "test"):
        if f"{split}/bits_per_dim" in metrics:
            rows.append((f"**{run.config.choices.model}, {split}**", metrics[f"{split}/bits_per_dim"], "this run"))
    here = (run.config.choices.data, spec.levels)
    for entry in run.config.published:
        if (entry.data, entry.levels) != here:
            continue
        in_bits = entry.metric.endswith("bits_per_dim")
        for name, value in entry.figures.items():
            rows.append((f"{name}, {entry.split}", value if in_bits else value / to_nats, entry.source))
    lines = ["| | bits/dim | nats/image | |", "|---|---:|---:|---|"]
    lines += [f"| {name} | {bits:.4f} | {bits * to_nats:,.2f} | {source} |" for name, bits, source in rows]
    return "\n".join(lines)


def snapshots_in(folder: Path) -> dict[int, Path]:
    """The samples drawn while training: for each step its file."""
    return {int(path.stem.removeprefix("step_")): path for path in sorted(folder.glob("step_*.npy"))}


def training_images(datamodule: Any) -> np.ndarray:
    """The training images as the network sees them: augmented, or drawn anew, once from a fixed seed."""
    images = np.asarray(datamodule.splits["train"].images)
    return datamodule.augment(images, np.random.default_rng(0), np.arange(len(images)), epoch=0)


def nearest_section(network: AutoregressiveNetwork, run: Any, count: int = 16) -> Section:
    """A few samples, each with the training image nearest to it: is the network repeating what it saw?"""
    drawn = np.load(run.folder / "samples.npy")
    drawn = drawn[:: max(1, len(drawn) // count)][:count]
    train = training_images(run.datamodule)
    grids = {"samples": drawn, "nearest training images": train[nearest(drawn, train)]}
    save_grids(run.folder / "figures" / "nearest.png", grids, network.spec.levels)
    text = "By Euclidean distance over all sub-pixels: copies would look the same on both sides."
    return Section("Nearest training images", text, "figures/nearest.png")


def centre(network: AutoregressiveNetwork) -> tuple[int, int]:
    return network.spec.height // 2, network.spec.width // 2


def receptive_field_of(network: AutoregressiveNetwork, datamodule: Any) -> np.ndarray:
    """`receptive_field` of the middle pixel over the first test images."""
    images, labels = (np.array(part[:FIELD_IMAGES]) for part in datamodule.splits["test"])
    device = next(network.parameters()).device
    given: list[Tensor] = [torch.from_numpy(part).to(device) for part in (images, labels.astype(np.int64))]
    return receptive_field(network.eval(), *given, *centre(network))
