"""What a page that compares runs of this task shows of them alone: mean IoU against the time of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from reporting.figures import save
from reporting.report import ComparedRun, Section

TIME, SCORE = "speed/latency_p50_ms", "test/miou"


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """A table and a picture of the runs whose speed was measured; nothing of fewer than two."""
    timed = [run for run in runs if TIME in run.metrics and SCORE in run.metrics]
    if len(timed) < 2:
        return []
    lines = ["| run | mean IoU | one image, p50 | GMAC |", "|---|---:|---:|---:|"]
    for run in sorted(timed, key=lambda run: run.metrics[TIME]):
        cells = f"{run.metrics[SCORE]:.3f} | {run.metrics[TIME]:.1f} ms | {run.metrics['speed/macs'] / 1e9:.3f}"
        lines.append(f"| {run.name} | {cells} |")
    save_scatter(folder / "miou_latency.png", timed)
    text = "\n".join(lines) + "\n\nEach run's time is of its first size, in float32, on its own machine."
    return [Section("Mean IoU against latency", text, "miou_latency.png")]


def save_scatter(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Each run as a point with its name."""
    figure, axis = plt.subplots(figsize=(7, 4))
    for run in runs:
        place = run.metrics[TIME], run.metrics[SCORE]
        axis.plot(*place, "o", color="#22223c")
        axis.annotate(f" {run.name}", place, fontsize=8)
    axis.set(xlabel="milliseconds of one image, p50", ylabel="mean IoU, test")
    axis.margins(x=0.2)
    axis.grid(alpha=0.3)
    save(figure, path)
