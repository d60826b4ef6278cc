"""What a page that compares runs of this task shows of them alone: drawings judged, and L_R against L_KL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from reporting.figures import save
from reporting.report import ComparedRun, Section

# Figures of the stage `judge`, and how each is written.
SHOWN = {
    "recognised": ("recognised", "{:.1%}"),
    "strokes_right": ("right strokes", "{:.1%}"),
    "faces_right": ("faces whole", "{:.1%}"),
    "closure": ("squares' gap", "{:.3f}"),
    "novelty": ("novelty", "{:.2f}"),
    "retrieval_top1": ("retrieval", "{:.1%}"),
    "l_r": ("L_R", "{:.3f}"),
    "l_kl": ("L_KL", "{:.3f}"),
    "elbo_nats": ("−ELBO, nats", "{:.2f}"),
}


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """A table of the judge's figures, and of several autoencoders L_R against L_KL."""
    there = [key for key in SHOWN if any(f"test/{key}" in run.metrics for run in runs)]
    lines = [f"| run | {' | '.join(SHOWN[key][0] for key in there)} |", "|---|" + "---:|" * len(there)]
    for run in runs:
        values = [(SHOWN[key][1], run.metrics.get(f"test/{key}")) for key in there]
        cells = ["" if value is None else form.format(value) for form, value in values]
        lines.append(f"| {run.name} | {' | '.join(cells)} |")
    sections = [Section("Drawings", "\n".join(lines))]
    coded = [run for run in runs if run.metrics.get("test/l_kl", 0) > 0]
    if len(coded) > 1:
        save_trade(folder / "l_r_l_kl.png", coded)
        text = (
            "The better L_R is paid for with L_KL; −ELBO, at each point in nats of a drawing, is what counts for both."
        )
        sections.append(Section("L_R against L_KL", text, "l_r_l_kl.png"))
    return sections


def save_trade(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Each run as a point, with its weight of the divergence and −ELBO."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for run in runs:
        x, y = run.metrics["test/l_kl"], run.metrics["test/l_r"]
        axis.plot(x, y, "o", color="#22223c")
        said = f" w = {run.config.task.module.kl.weight:g}, {run.metrics.get('test/elbo_nats', float('nan')):.1f}"
        axis.annotate(said, (x, y), fontsize=8)
    axis.set(xlabel="L_KL", ylabel="L_R")
    axis.grid(alpha=0.3)
    save(figure, path)
