"""Runs side by side: `python -m reporting.compare RUN RUN … [--output comparison.html]`.

One page that needs no other file: what the runs differ in, their figures, the differences on the same test items with
a bootstrap interval, their curves, and what their task adds. Every run is compared with the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.tools import Arguments, run_tool
from reporting.figures import read_curves, save
from reporting.folder import read_run, task_class, task_settings
from reporting.intervals import RESAMPLES, mean_interval
from reporting.predictions import read_predictions
from reporting.report import ComparedRun, Section, number, page, write_text
from reporting.targets import moved

LEFT_OUT = ("paths", "hydra", "provenance", "ckpt_path", "published", "choices", "stages")
ALWAYS = ("commit", "machine", "command")


def main(words: Sequence[str]) -> Path:
    """Writes the page; returns its path.

    Raises:
        UsageError: the runs cannot be compared.
    """
    parser = Arguments(prog="python -m reporting.compare", description="Runs side by side, on one page.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="a run's folder; the others are set against it"
    )
    parser.add_argument("--output", type=Path, default=Path("comparison.html"), help="the page (default: %(default)s)")
    args = parser.parse_args(words)
    runs = read_runs(args.runs)
    check_comparable(runs)
    task = task_class(runs[0].config.choices.task)
    with TemporaryDirectory() as folder:
        text = comparison_page(runs, task, Path(folder))
        title = f"{runs[0].config.choices.task} on {runs[0].config.choices.data}: {len(runs)} runs compared"
        return write_text(args.output, page(title, f"# {title}\n\n{text}", Path(folder)))


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """What the runs left, each under a name of its own.

    Raises:
        UsageError: fewer than two, or one has no configuration, figures or predictions.
    """
    if len(folders) < 2:
        raise UsageError("One run alone cannot be compared: give the folders of two or more.")
    found = []
    for folder in folders:
        for file in ("config.yaml", "metrics.json", "predictions.npz"):
            if not (folder / file).is_file():
                raise UsageError(
                    f"'{folder}' holds no {file}: give the folder of a run that was tested, in one process; "
                    f"`python train.py stages=[test] ckpt_path={folder} hydra.run.dir={folder}` tests it."
                )
        config, metrics = read_run(folder)
        predictions = read_predictions(folder)
        found.append(ComparedRun("", folder, config, metrics, predictions))
    return [run._replace(name=name) for run, name in zip(found, names(found), strict=True)]


def names(runs: Sequence[ComparedRun]) -> list[str]:
    """A short name for each run: its experiment or model, numbered where that is not enough."""
    plain = []
    for run in runs:
        command = str(run.config.provenance.command).split()
        experiment = next((word.split("=", 1)[1] for word in command if word.startswith("experiment=")), None)
        plain.append(experiment or str(run.config.choices.model))
    return [f"{name} {plain[: n + 1].count(name)}" if plain.count(name) > 1 else name for n, name in enumerate(plain)]


def check_comparable(runs: Sequence[ComparedRun]) -> None:
    """Raises UsageError when two runs are of different tasks, of one that is not here, or tested on different items."""
    first = runs[0]
    if not task_settings(name := str(first.config.choices.task)):
        raise UsageError(
            f"'{first.folder}' is of task={name}, which this checkout does not have: compare it in its own."
        )
    for run in runs[1:]:
        for group in ("task", "data"):
            ours, theirs = first.config.choices[group], run.config.choices[group]
            if ours != theirs:
                raise UsageError(
                    f"'{first.folder}' is of {group}={ours} and '{run.folder}' of {group}={theirs}: only runs tested "
                    "on the same items can be compared."
                )
        ours, theirs = (found.predictions.get("label", np.empty(0)) for found in (first, run))
        if not np.array_equal(ours, theirs):
            raise UsageError(
                f"'{first.folder}' was tested on {len(ours)} items and '{run.folder}' on {len(theirs)} others: test "
                "both on the same, with stages=[test] and the same data settings."
            )


def comparison_page(runs: Sequence[ComparedRun], task: type[Any], folder: Path) -> str:
    """The page's Markdown; its pictures go into `folder`."""
    sections = [
        Section("What differs", table(runs, differing_settings(runs), "setting")),
        Section("Figures", table(runs, figures(runs), "figure", "---:")),
    ]
    items = [task.item_figures(run.predictions) for run in runs]
    if shared := [name for name in items[0] if all(name in some for some in items)]:
        sections.append(Section("Differences on the same test items", differences(runs, items, shared)))
    sections += task.comparison(runs, folder)
    if save_compared_curves(folder / "curves.png", runs):
        text = "Dashed: training, means since the last validation; solid: validation."
        sections.append(Section("Curves", text, "curves.png"))
    lines = []
    for section in sections:
        lines += [f"## {section.title}", "", section.text, ""]
        if section.figure:
            lines += [f"![{section.title}]({section.figure})", ""]
    return "\n".join(lines)


def table(runs: Sequence[ComparedRun], rows: dict[str, list[str]], what: str, rule: str = "---") -> str:
    """Markdown: a column for each run."""
    lines = [f"| {what} | {' | '.join(run.name for run in runs)} |", "|---|" + f"{rule}|" * len(runs)]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def settings_of(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of nested containers."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from settings_of(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, and where each run comes from."""
    settings = []
    for run in runs:
        config = moved(OmegaConf.to_container(run.config))
        settings.append(dict(settings_of({key: value for key, value in config.items() if key not in LEFT_OUT})))
    rows = {"folder": [f"`{run.folder}`" for run in runs]}
    for name in dict.fromkeys(name for some in settings for name in some):
        values = [some.get(name, "—") for some in settings]
        if any(value != values[0] for value in values) and name not in ("data.path", "data.cache"):
            rows[name.removesuffix("._target_")] = [f"`{value}`" for value in values]
    return rows | {name: [f"`{run.config.provenance.get(name, '—')}`" for run in runs] for name in ALWAYS}


def figures(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Every final figure of every run."""
    found = dict.fromkeys(name for run in runs for name in sorted(run.metrics))
    return {name: [number(run.metrics[name]) if name in run.metrics else "—" for run in runs] for name in found}


def differences(runs: Sequence[ComparedRun], items: Sequence[dict[str, np.ndarray]], shared: Sequence[str]) -> str:
    """Markdown: each figure of each run but the first, less the first's, with its 95 % interval."""
    first, lines = runs[0].name, ["| figure | run | mean | difference | 95 % interval |", "|---|---|---:|---:|---|"]
    for name in shared:
        lines.append(f"| {name} | {first} | {items[0][name].mean():.4f} | | |")
        for run, some in zip(runs[1:], items[1:], strict=True):
            gaps = some[name] - items[0][name]
            low, high = mean_interval(gaps)
            apart = "" if low <= 0 <= high else ", not 0"
            cells = f"{some[name].mean():.4f} | {gaps.mean():+.4f} | {low:+.4f} … {high:+.4f}{apart}"
            lines.append(f"| {name} | {run.name} | {cells} |")
    count = len(items[0][shared[0]])
    text = (
        f"Each run less {first}, over the same {count:,} test items; the interval is of {RESAMPLES:,} bootstrap "
        "samples of the items. It tells what other test items might have shown, not what another training might."
    )
    return "\n".join([text, "", *lines])


def save_compared_curves(path: Path, runs: Sequence[ComparedRun]) -> bool:
    """The task's curves of all runs against the items trained on; False with nothing to draw."""
    metrics = runs[0].config.task.get("curves", [runs[0].config.task.monitor.split("/")[1]])
    curves = [read_curves(run.folder / "metrics.csv") if (run.folder / "metrics.csv").exists() else {} for run in runs]
    metrics = [m for m in metrics if any(f"{s}/{m}" in some for some in curves for s in ("train", "val"))]
    if not metrics:
        return False
    figure, axes = plt.subplots(1, len(metrics), figsize=(5.5 * len(metrics), 4), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for n, (run, some) in enumerate(zip(runs, curves, strict=True)):
            for split, style in (("train", "--"), ("val", "-")):
                if points := some.get(f"{split}/{metric}"):
                    steps, values = zip(*points, strict=True)
                    seen = (np.array(steps) + 1) * run.config.data.batch_size
                    label = run.name if split == "val" or f"val/{metric}" not in some else None
                    axis.plot(seen, values, style, marker="" if len(seen) > 1 else "o", color=f"C{n}", label=label)
        axis.set_xlabel("items trained on")
        axis.set_ylabel(metric.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)
    return True


if __name__ == "__main__":
    run_tool(main)
