"""The sections of a summary's page, each as lines of Markdown; those with figures write them too."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from datamodules.errors import UsageError
from reporting.folder import task_class, task_settings
from reporting.predictions import read_predictions
from reporting.published import Figure, short_keys, text
from reporting.report import ComparedRun
from reporting.runs import Run, Setting, Summary, with_interval
from reporting.statistics import holm, mean, welch
from reporting.summary.figures import save_against, save_all_curves, save_ranking, words

ALL_PAIRS = 8  # up to so many settings each is compared with each, more of them with the best alone
LEVEL = 0.05


def counts(summary: Summary) -> str:
    states = {state: len(summary.ended(state)) for state in ("finished", "failed", "unfinished")}
    ended = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    return f"{ended}; {words(summary.metrics[0])}, {order(summary)}:"


def order(summary: Summary) -> str:
    if not summary.ranked:
        return "in the order of the runs"
    return "highest first" if summary.task["mode"] == "max" else "lowest first"


def overview(summary: Summary) -> list[str]:
    """What ended how, and the best setting in a sentence."""
    states = {state: len(summary.ended(state)) for state in ("finished", "failed", "unfinished")}
    number = len(summary.runs)
    said = f"{number} run{'s' * (number != 1)}: " + ", ".join(f"{n} {state}" for state, n in states.items() if n) + "."
    if summary.settings and summary.ranked:
        best, metric = summary.settings[0], summary.metrics[0]
        seeds = len(best.monitored)
        said += f" Best {words(metric)}: **{with_interval(best.monitored)}** with `{best.name}`"
        said += f" ({seeds} seed{'s' * (seeds != 1)})."
    if summary.following:
        said += f" Varied: {code(summary.varied)}; with them came {code(summary.following)}."
    return [said, ""]


def code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def columns(summary: Summary) -> list[str]:
    return [*summary.varied, "seeds", *(words(metric) for metric in summary.metrics), "parameters", "minutes"]


def cells(summary: Summary, setting: Setting) -> list[str]:
    parameters = sorted({int(value) for value in setting.values("parameters")})
    fit = setting.values("seconds/fit")
    minutes = mean(fit) / 60 if fit else math.nan
    return [
        *(text(setting.keys[key]) for key in summary.varied),
        str(len(setting.runs)),
        *(with_interval(setting.values(metric)) for metric in summary.metrics),
        "–".join(f"{count:,}" for count in parameters),
        f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2g}",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words_first: int = 1) -> list[str]:
    """Markdown; the columns after the first `words_first` are aligned right."""
    rule = "|---" * words_first + "|---:" * (len(header) - words_first)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(header)} |", f"{rule}|", *(f"| {' | '.join(row)} |" for row in escaped), ""]


def ranking(summary: Summary) -> list[str]:
    """The table of settings, and their picture."""
    if not summary.settings:
        return ["No run has finished yet.", ""]
    metric = summary.metrics[0]
    lines = ["## Settings", ""]
    if summary.ranked:
        path = summary.folder / summary.pictures / "ranking.png"
        save_ranking(path, summary.settings, metric, published_for(summary, metric))
        lines += [f"![Settings, best first]({summary.pictures}/ranking.png)", ""]
        lines += ["Diamonds: means with their 95 % intervals, which may leave the picture; points: seeds.", ""]
    rows = [cells(summary, setting) for setting in summary.settings]
    lines += table(columns(summary), rows, len(summary.varied))
    spread = "± is half the 95 % interval of the mean over seeds (Student's t); one seed has none."
    if summary.ranked:
        about = f"By {words(metric)}, {order(summary)}. {spread} Choose by validation figures: the test split's stand "
        about += "beside them and choose nothing."
    else:
        about = f"In the order of the runs: {words(metric)} of each is of other data, and ranks nothing. {spread}"
    about += " Minutes are of training, on average."
    return [*lines, about, ""]


def differences(summary: Summary) -> list[str]:
    """Which settings differ by more than their seeds do."""
    if len(summary.settings) < 2 or not summary.ranked:
        return []
    metric = summary.metrics[0]
    head = ["## Larger than the noise of the seeds?", ""]
    known = [setting for setting in summary.settings if len(setting.monitored) > 1]
    if len(known) < 2:
        return [*head, "One seed cannot tell: run each setting with several, as in `seed=1,2,3`.", ""]
    pairs = list(combinations(known, 2)) if len(known) <= ALL_PAIRS else [(known[0], other) for other in known[1:]]
    corrected = holm([welch(first.monitored, second.monitored) for first, second in pairs])
    rows = []
    for (first, second), p in zip(pairs, corrected, strict=True):
        gap = abs(mean(first.monitored) - mean(second.monitored))
        answer = "**yes**" if p < LEVEL else "not shown"
        rows.append([first.name, second.name, f"{gap:.4f}", f"{p:.3g}", answer])
    compared = "each pair of settings" if len(known) <= ALL_PAIRS else "the best setting with each other one"
    about = (
        f"Welch's t-test on {words(metric)} for {compared}, {len(pairs)} in all, p by Holm's correction; yes: p below "
        f"{LEVEL:g}. “Not shown” does not mean equal: more seeds may tell."
    )
    if left_out := len(summary.settings) - len(known):
        about += f" {left_out} setting{'s' * (left_out != 1)} with one seed left out: one seed cannot tell."
    return [*head, *table(["better", "than", "by", "p", "larger"], rows, 2), about, ""]


def figures(summary: Summary) -> list[str]:
    """The metric against each varied key, and every run's curve."""
    lines, metric = [], summary.metrics[0]
    for key in summary.varied if summary.settings else []:
        file = f"{summary.pictures}/by_{re.sub(r'[^A-Za-z0-9]+', '_', key)}.png"
        save_against(summary.folder / file, key, summary.settings, metric)
        lines += [f"## By {key}", "", f"![{words(metric)} by {key}]({file})", ""]
    others = [run for run in summary.runs if run.state != "finished"]
    file = f"{summary.pictures}/curves.png"
    if save_all_curves(summary.folder / file, summary.settings, others, metric):
        lines += ["## Curves", "", f"![Curves of all runs]({file})", ""]
    return lines


def side_by_side(summary: Summary) -> list[str]:
    """What the task shows of its runs beside each other (`Task.comparison`), where `task.compared` asks for it here."""
    name = summary.runs[0].choices["task"]
    if not summary.task.get("compared") or not task_settings(name):
        return []
    runs = []
    for run in summary.ended("finished"):
        try:
            predictions = read_predictions(run.folder)
        except UsageError:  # it was not tested, or its file is damaged
            continue
        own = OmegaConf.create(run.config)
        runs.append(ComparedRun(run_name(summary, run), run.folder, own, run.metrics, predictions))
    if len(runs) < 2:
        return []
    lines = []
    for section in task_class(name).comparison(runs, summary.folder / summary.pictures):
        lines += [f"## {section.title}", "", section.text, ""]
        if section.figure:
            lines += [f"![{section.title}]({summary.pictures}/{section.figure})", ""]
    return lines


def published_for(summary: Summary, metric: str) -> dict[str, float]:
    """Others' figures for this very metric, on the data of all these runs, by name."""
    data = {run.choices["data"] for run in summary.runs}
    return {
        figure.name or figure.source: figure.value
        for figure in summary.published
        if {figure.data} == data and figure.metric == metric
    }


def published_table(summary: Summary) -> list[str]:
    """Others' figures; ours beside them where data, split and metric are the same."""
    rows = []
    for figure in summary.published:
        run_data = sorted({run.choices["data"] for run in summary.runs})
        ours = our_figure(summary, figure) if figure.data in run_data else "other data"
        rows.append([figure.name, figure.data, words(figure.metric), f"{figure.value:g}", ours, figure.source])
    if not rows:
        return []
    about = "Ours: the setting that the figure names, the best on validation data of several; else the best of all."
    header = ["published", "data", "metric", "theirs", "ours", "source"]
    return ["## Published figures", "", *table(header, rows, 3), about, ""]


def our_figure(summary: Summary, figure: Figure) -> str:
    """Ours for a published figure, from the best setting on validation data that stands beside it."""
    for setting in summary.settings:
        run = next(iter(setting.runs.values()))
        if figure.beside(run.choices["data"], run.settings) and setting.values(figure.metric):
            return with_interval(setting.values(figure.metric))
    return "not run"


def stage_table(summary: Summary) -> list[str]:
    """An ablation's stages: every value tried on top of what was carried on, and what was carried on from it."""
    if not (stages := summary.stages):
        return []
    keys, metric = list(stages[0]["trials"][0]), summary.metrics[0]
    metrics = [metric.replace("val/", "train/"), metric]
    rows = []
    for stage in stages:
        for trial in stage["trials"]:
            wanted = [text(trial[key]) for key in keys]  # as text JSON's lists are the runs' tuples
            runs = [r for r in summary.ended("finished") if [text(r.settings.get(key)) for key in keys] == wanted]
            ours = [with_interval([run.metrics[name] for run in runs if name in run.metrics]) for name in metrics]
            carried = " ←" if trial[stage["key"]] == stage["carried"] else ""
            values = [f"**{text(trial[key])}**{carried}" if key == stage["key"] else text(trial[key]) for key in keys]
            rows.append([str(len(rows)), *values, *ours, *theirs(summary, trial, metrics)])
    header = ["", *short_keys(keys).values(), *map(words, metrics), *(f"published {words(name)}" for name in metrics)]
    if not any(row[-1] or row[-2] for row in rows):
        header, rows = header[:-2], [row[:-2] for row in rows]
    about = (
        "In bold the key of the stage; ← the value carried on, the best on validation data, of equal ones the one "
        "before. A setting known from an earlier stage was not run again: its figures stand in both."
    )
    return ["## Stage by stage", "", *table(header, rows, 1 + len(keys)), about, ""]


def theirs(summary: Summary, trial: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Others' figures of an ablation's setting, on the data of all these runs."""
    data = {run.choices["data"] for run in summary.runs}
    figures = [figure for figure in summary.published if figure.words and {figure.data} == data]
    found = {figure.metric: f"{figure.value:g}" for figure in figures if figure.beside(figure.data, trial)}
    return [found.get(name, "") for name in metrics]


def troubles(summary: Summary) -> list[str]:
    """Which jobs failed and why, which did not end."""
    lines = []
    if found := failures(summary):
        lines = ["## Failed", "", *(f"- **{', '.join(names)}**: {said}" for said, names in found.items()), ""]
    if unfinished := summary.ended("unfinished"):
        lines += ["## Unfinished", "", "Killed, or still at work:", ""]
        for run in unfinished:
            steps = max((step for step, _ in run.curve(summary.metrics[0])), default=0)
            kept = "goes on from its last checkpoint" if (run.folder / "checkpoints/last.ckpt").exists() else "anew"
            lines += [f"- **{run_name(summary, run)}** `{setting_of(summary, run)}`: {steps} steps validated; {kept}"]
        lines += ["", "The sweep's own command with `hydra.sweep.dir=` this folder runs what is missing.", ""]
    return lines


def failures(summary: Summary) -> dict[str, list[str]]:
    """For each reason the runs that failed for it."""
    found: dict[str, list[str]] = {}
    for run in summary.ended("failed"):
        error, said = run.failure.get("error", ""), run.failure.get("message") or "no message"
        found.setdefault(said if error == "UsageError" else f"{error}: {said}", []).append(run_name(summary, run))
    return found


def setting_of(summary: Summary, run: Run) -> str:
    return " ".join(f"{key}={text(run.settings.get(key))}" for key in summary.words)


def run_name(summary: Summary, run: Run) -> str:
    """The run's folder as seen from the summary's."""
    return Path(os.path.relpath(run.folder, summary.folder)).as_posix()


def run_table(summary: Summary) -> list[str]:
    """Every run, with its own report."""
    rows = []
    for run in summary.runs:
        name = run_name(summary, run)
        link = f"[{name}]({name}/report.html)" if (run.folder / "report.html").exists() else name
        value = "" if run.value is None else f"{run.value:.4f}"
        rows.append([link, setting_of(summary, run), run.state, str(run.config["seed"]), value])
    return ["## Runs", "", *table(["run", "setting", "state", "seed", words(summary.metrics[0])], rows, 3)]


def origin(summary: Summary) -> list[str]:
    """Commands, commits and machines behind the runs."""
    lines = ["## How it was made", ""]
    for name in ("command", "commit", "machine"):
        said = dict.fromkeys(run.config.get("provenance", {}).get(name) for run in summary.runs)
        lines += [f"- {name}: `{value}`" for value in said if value]
    return [*lines, ""]
