"""What a page that compares runs shows of them alone: every score in every run, and rate against distortion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.anomaly.judging import auc
from reporting.figures import save
from reporting.published import published_figures, text
from reporting.report import ComparedRun, Section

KINDS = ("score_", "baseline_")
REPEATS = {"normal", "held out", "seed"}  # over runs that differ in these alone a mean means something


def comparison_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """Areas under the ROC curve of every score and baseline, with their means; rate–distortion where β differs."""
    sections = [Section("Area under the ROC curve", score_table(runs))]
    rates = [run for run in runs if {"test/kl", "test/reconstruction"} <= run.metrics.keys()]
    if len({run.config.task.module.beta for run in rates}) > 1:
        save_rate_distortion(folder / "rate_distortion.png", rates)
        said = "Rate: the KL; distortion: −E log p(x|z); both of the normal test images. A line for each likelihood."
        sections.append(Section("Rate and distortion", said, "rate_distortion.png"))
    return sections


def differing(runs: Sequence[ComparedRun]) -> dict[str, Callable[[ComparedRun], Any]]:
    """What runs differ in, of data, normal class, β, likelihood, contrast, latents, epochs, held-out picture, seed."""
    keys = {
        "data": lambda run: run.config.choices.data,
        "normal": normal_class,
        "beta": lambda run: run.config.task.module.beta,
        "likelihood": lambda run: run.config.task.module.likelihood,
        "contrast": lambda run: run.config.data.get("contrast"),
        "latent": lambda run: run.config.model.latent,
        "epochs": lambda run: run.config.trainer.max_epochs,
        "held out": lambda run: run.config.data.get("held_out"),
        "seed": lambda run: run.config.seed,
    }
    return {name: find for name, find in keys.items() if len({text(find(other)) for other in runs}) > 1}


def setting(run: ComparedRun, runs: Sequence[ComparedRun], repeats: bool = True) -> str:
    """What is particular of a run among the others; without its `REPEATS`, if asked."""
    found = {name: find for name, find in differing(runs).items() if repeats or name not in REPEATS}
    return ", ".join(f"{name} {text(find(run))}" for name, find in found.items()) or run.name


def normal_class(run: ComparedRun) -> str:
    """The names of the normal classes."""
    return ", ".join(str(name) for name in run.predictions["normal_names"])


def score_table(runs: Sequence[ComparedRun]) -> str:
    """Markdown: a row for each score and baseline, a column for each run; then what others published.

    The mean stands where the runs differ in their normal class, held-out picture or seed alone; where settings were
    repeated, each has one column, of its mean and range.
    """
    alike = differing(runs).keys() <= REPEATS
    repeated: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        repeated.setdefault(setting(run, runs, repeats=False), []).append(place)
    together = not alike and min(map(len, repeated.values())) > 1
    titles = list(repeated) if together else [*(setting(run, runs) for run in runs), *["mean"] * alike]
    names = dict.fromkeys(name for run in runs for name in run.predictions if name.startswith(KINDS))
    lines = [f"| score | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    chosen = {f"score_{run.config.task.module.score}" for run in runs}
    before = ""
    for name in sorted(names, key=lambda name: name.startswith("baseline_")):  # the network's first, in their order
        if name.startswith("baseline_") and not before.startswith("baseline_"):
            lines.append(f"| *without a network* |{' |' * len(titles)}")
        before = name
        found = [area(run, name) for run in runs]
        if together:
            cells = [mean_and_range([found[place] for place in places]) for places in repeated.values()]
        else:
            cells = ["" if np.isnan(value) else f"{value:.4f}" for value in found]
            cells += ["" if np.isnan(found).any() else f"**{np.mean(found):.4f}**"] * alike
        title = name.partition("_")[2].replace("_", " ")
        lines.append(f"| {f'**{title}**' if name in chosen else title} | {' | '.join(cells)} |")
    lines += [] if together else published_rows(runs, alike)
    note = (
        "In bold the score that decides, which was fixed beforehand; a mean only of runs of one setting. No score "
        "is chosen, and none turned round, by these figures."
    )
    return f"{note}\n\n" + "\n".join(lines)


def mean_and_range(found: Sequence[float]) -> str:
    """Of the runs of a setting; one figure where they agree, nothing where one has none."""
    if np.isnan(found).any():
        return ""
    spread = f" ({min(found):.4f} … {max(found):.4f})" if max(found) - min(found) > 5e-5 else ""
    return f"{np.mean(found):.4f}{spread}"


def area(run: ComparedRun, name: str) -> float:
    """NaN where the run has no such score, or its test images are of one side."""
    if name not in run.predictions:
        return np.nan
    return auc(run.predictions["anomalous"].astype(bool), run.predictions[name])


def published_rows(runs: Sequence[ComparedRun], mean: bool) -> list[str]:
    """Others' figures, in the columns of the normal classes they name, and if asked their mean where they name all."""
    data, rows = runs[0].config.choices.data, []
    normal = [normal_class(run) for run in runs]
    for entry in runs[0].config.published:
        if entry.data != data or not published_figures([entry]):
            continue
        figures = {str(name): value for name, value in entry.figures.items()}
        if not figures.keys() & set(normal):
            continue
        cells = [f"{figures[name]:.4f}" if name in figures else "" for name in normal]
        if mean:
            cells.append(f"{np.mean([figures[name] for name in normal]):.4f}" if set(normal) <= figures.keys() else "")
        rows.append(f"| {entry.get('name', entry.source)} ({entry.source}) | {' | '.join(cells)} |")
    head = f"| *published* |{' |' * (len(runs) + mean)}"
    return [head, *rows] if rows else []


def save_rate_distortion(path: Path, runs: Sequence[ComparedRun]) -> None:
    """Distortion against rate, one point a run, labelled by its β; a panel for each likelihood, whose nats differ."""
    kinds = list(dict.fromkeys(str(run.config.task.module.likelihood) for run in runs))
    figure, axes = plt.subplots(1, len(kinds), figsize=(5 * len(kinds), 4.2), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        own = sorted((run for run in runs if run.config.task.module.likelihood == kind), key=rate)
        axis.plot([rate(run) for run in own], [run.metrics["test/reconstruction"] for run in own], "o-")
        for run in own:
            place = (rate(run), run.metrics["test/reconstruction"])
            axis.annotate(f" β {run.config.task.module.beta:g}", place, fontsize=8)
        axis.set_title(kind)
        axis.set_xlabel("rate, nats")
        axis.set_ylabel("distortion, nats")
        axis.grid(alpha=0.3)
    save(figure, path)


def rate(run: ComparedRun) -> float:
    return run.metrics["test/kl"]
