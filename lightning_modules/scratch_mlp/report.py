"""The task's part of a run's report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.classification.report import accuracy_table, prediction_sections
from lightning_modules.scratch_mlp.figures import save_first_weights, save_updates
from lightning_modules.scratch_mlp.network import ScratchMLP
from lightning_modules.scratch_mlp.updates import FILE
from reporting.report import Section


def report_sections(network: ScratchMLP, run: Any) -> list[Section]:
    """Accuracy beside published figures, what an update is worth, what the predictions show, the first weights."""
    sections = [Section("Accuracy", f"{accuracy_table(run)}\n\n{data_used(run)}")]
    if (run.folder / FILE).exists():
        sections.append(updates_section(run, json.loads((run.folder / FILE).read_text(encoding="utf-8"))))
    if (run.folder / "predictions.npz").exists():
        predictions = np.load(run.folder / "predictions.npz")
        sections += prediction_sections(predictions["label"], predictions["probabilities"], run)
    return [*sections, weights_section(network, run.folder)]


def data_used(run: Any) -> str:
    """How many images each split has, and what must be known of the data."""
    sizes = {name: len(split.images) for name, split in run.datamodule.splits.items()}
    note = f" The data: {run.datamodule.note}." if run.datamodule.note else ""
    return f"{sizes['train']:,} images train, {sizes['val']:,} validate, {sizes['test']:,} test.{note}"


def updates_section(run: Any, found: dict[str, Any]) -> Section:
    """The first updates of each descent from one start."""
    save_updates(run.folder / "figures" / "updates.png", found["traces"])
    updates, batches = found["updates"], found["batches"]
    lines = [
        f"Full-batch descent gets one update an epoch, {updates} in {updates} epochs, where mini-batches get "
        f"{updates * batches:,}. So many updates, each descent from the same weights at the same learning rate:\n",
        f"| descent | images gone through | validation loss, nats, after {updates} updates | accuracy |",
        "|---|---:|---:|---:|",
    ]
    for trace in found["traces"]:
        loss = f"{trace['loss'][-1]:.4f}" if math.isfinite(trace["loss"][-1]) else "diverged"
        lines.append(f"| {trace['name']} | {updates * trace['images']:,} | {loss} | {trace['accuracy'][-1]:.1%} |")
    lines.append(
        "\nWhere the full batch stands no lower than a mini-batch after as many updates, the gradient of all images is "
        "hardly better than that of a few: what it lacks is updates. The dashed lines show how far longer steps make "
        "up for that, and what small random weights do: the gradient is their product over the layers, so that the "
        "first updates hardly move anything."
    )
    return Section("What an update is worth", "\n".join(lines), "figures/updates.png")


def weights_section(network: ScratchMLP, folder: Path) -> Section:
    """The first layer's weights as pictures; of colour images the mean over channels."""
    pictures = network.weights[0].detach().cpu().numpy().T.reshape(-1, *network.spec.shape).mean(1)
    save_first_weights(folder / "figures" / "first_weights.png", pictures)
    text = f"What each of the first hidden layer's {len(pictures)} units looks for: red pixels raise it, blue lower it."
    return Section("First-layer weights", text, "figures/first_weights.png")
