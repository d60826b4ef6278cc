"""Every kept run and sweep: tables, class by class, and where each came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reporting.published import Figure
from reporting.results.beside import interval, number, row, words
from reporting.results.kept import CLASS_FIGURE, COUNTS, Kept, known_task

MOST = 12  # figures of other stages that a line shows


def run_tables(kept: Sequence[Kept]) -> list[str]:
    """A table for each task and data set."""
    lines = ["## Every run", ""]
    runs = [one for one in kept if not one.varied]
    for task, data in sorted({(run.task, run.data) for run in runs}):
        lines += run_table(task, data, [run for run in runs if (run.task, run.data) == (task, data)])
    return lines


def run_table(task: str, data: str, runs: Sequence[Kept]) -> list[str]:
    """One task's runs on one data set, without columns that none of them fills."""
    node = known_task(task)
    shown = [full(name) for name in [*node["shown"], *node.get("shown_of_other_stages", [])]]
    first = node["shown"][0].split("/")[-1]
    columns = {"machine": machine, "parameters": count("parameters"), "steps": count("steps"), "minutes": minutes}
    columns |= {split: figure(f"{split}/{first}") for split in ("train", "val")}
    columns |= {words(name): figure(name) for name in shown}
    columns = {name: cell for name, cell in columns.items() if any(map(cell, runs))}
    rule = ["---" if name == "machine" else "---:" for name in columns]
    lines = [f"### {task}: {data}", "", row(["run", *columns]), row(["---", *rule])]
    lines += [row([run.link, *(cell(run) for cell in columns.values())]) for run in runs]
    lines += ["", *([f"The columns train and val are {words(first)}.", ""] if {"train", "val"} & set(columns) else [])]
    return lines + other_stages(runs, shown)


def full(name: str) -> str:
    """A shown metric's full name: one with a slash is it already, another is of the test split."""
    return name if "/" in name else f"test/{name}"


def other_stages(runs: Sequence[Kept], shown: Sequence[str]) -> list[str]:
    """What other stages measured, a line a run."""
    lines = []
    for run in runs:
        names = [name for name in sorted(run.metrics) if own_stage(name) and name not in shown]
        said = [f"{words(name)} {value(run.metrics[name])}" for name in names[:MOST]]
        more = [f"and {len(names) - MOST} more in its metrics.json"] if len(names) > MOST else []
        lines += [f"- {run.name}: {', '.join([*said, *more])}"] if said else []
    return ["Of other stages:", "", *lines, ""] if lines else []


def own_stage(name: str) -> bool:
    return "/" in name and not name.startswith(("train/", "val/", "test/", *COUNTS))


def value(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else number(figure)


def machine(run: Kept) -> str:
    """Its GPU, else its processor."""
    parts = str(run.provenance.get("machine", "")).split(", ")
    return parts[-1] if len(parts) > 2 else parts[0]


def minutes(run: Kept) -> str:
    return f"{run.metrics['seconds/fit'] / 60:.1f}" if "seconds/fit" in run.metrics else ""


def count(name: str) -> Callable[[Kept], str]:
    return lambda run: f"{int(run.metrics[name]):,}" if name in run.metrics else ""


def figure(name: str) -> Callable[[Kept], str]:
    return lambda run: number(run.metrics[name]) if name in run.metrics else ""


def sweep_table(kept: Sequence[Kept]) -> list[str]:
    """One line for each kept sweep: its best setting, as its page has them all."""
    sweeps: dict[str, list[Kept]] = {}
    for setting in kept:
        if setting.varied:
            sweeps.setdefault(setting.name, []).append(setting)
    if not sweeps:
        return []
    header = ["sweep", "data", "varied", "runs", "best on validation data", "figure"]
    lines = ["## Every sweep", "", row(header), "|---" * len(header) + "|"]
    for name, settings in sweeps.items():
        best, monitor = settings[0], next(iter(settings[0].metrics))
        setting = " ".join(f"{key}={value}" for key, value in best.varied.items())
        runs = str(sum(one.seeds for one in settings))
        reached = f"{words(monitor)} {number(best.metrics[monitor])}{interval(best, monitor)}"
        cells = [best.data, ", ".join(best.varied), runs, f"`{setting}`", reached]
        lines.append(row([f"[{name}](results/{name}/summary.md)", *cells]))
    return [*lines, ""]


def origins_list(kept: Sequence[Kept]) -> list[str]:
    """Command, machine and commit of each run and sweep."""
    lines = ["## Commands, machines, commits", ""]
    for name, record in {one.name: one.provenance for one in kept}.items():
        lines.append(f"- **{name}**: `{record['command']}`; {record['machine']}; commit {record['commit']}")
    return lines


def class_page(run: Kept, figures: Sequence[Figure]) -> str | None:
    """A run's figures class by class, those published beside them; None for a run that has none."""
    found = [match for name in run.metrics if (match := CLASS_FIGURE.fullmatch(name))]
    if not found:
        return None
    measures = sorted({match[0].removesuffix(f"/{match[2]}") for match in found}, key=usual_order)
    classes = sorted({match[2] for match in found})
    beside = {f.metric: f for f in figures if CLASS_FIGURE.fullmatch(f.metric) and f.beside(run.data, run.settings)}
    published = {name: figure.value for name, figure in beside.items()}
    columns = [(measure, run.metrics) for measure in measures]
    columns += [(m, published) for m in measures if any(f"{m}/{name}" in published for name in classes)]
    header = [words(measure) + (", published" if values is published else "") for measure, values in columns]
    lines = [f"# {run.name}, class by class", "", row(["class", *header]), "|---" + "|---:" * len(columns) + "|"]
    for name in classes:
        lines.append(row([name, *(class_cell(values, f"{measure}/{name}") for measure, values in columns)]))
    lines += ["", f"`{run.provenance['command']}`"]
    sources = dict.fromkeys(f"{figure.name}, {figure.source}" for figure in beside.values())
    return "\n".join([*lines, *(f"\nPublished: {source}." for source in sources)]) + "\n"


def usual_order(measure: str) -> tuple[str, int, str]:
    """Precision, recall and F1 as people read them, others by name."""
    split, name = measure.split("/")
    usual = ("precision", "recall", "f1")
    return split, usual.index(name) if name in usual else len(usual), name


def class_cell(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.4f}" if name in values else ""
