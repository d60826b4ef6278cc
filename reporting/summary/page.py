"""The answer of a sweep: summary.md, summary.csv, summary.html and figures, from whatever runs a folder holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reporting.published import text
from reporting.report import page, write_text
from reporting.runs import Setting, Summary, read_summaries, with_interval
from reporting.statistics import half_interval, mean
from reporting.summary.sections import (
    counts,
    differences,
    failures,
    figures,
    origin,
    overview,
    published_table,
    ranking,
    run_table,
    side_by_side,
    stage_table,
    troubles,
)

TOP = 5  # rows that a sweep's last lines show


def write_summary(folders: Sequence[Path], to: Path) -> list[Summary]:
    """Summarises the runs under `folders` in the folder `to`, each task's by themselves on one page.

    Raises:
        UsageError: there is no run.
    """
    summaries = read_summaries(folders, to)
    to.mkdir(parents=True, exist_ok=True)
    titles = [title_of(summary) for summary in summaries]
    title = f"Summary: {'; '.join(titles)}"
    lines = [f"# {title}", ""]
    for name, summary in zip(titles, summaries, strict=True):
        if len(summaries) == 1:
            lines += sections(summary)
        else:
            lines += [f"## {name}", "", *(f"#{line}" if line.startswith("## ") else line for line in sections(summary))]
    text_of_page = "\n".join(lines) + "\n"
    write_text(to / "summary.md", text_of_page)
    write_text(to / "summary.csv", table_as_csv(summaries))
    write_text(to / "summary.html", page(title, text_of_page, to))
    return summaries


def title_of(summary: Summary) -> str:
    return f"{summary.runs[0].choices['task']} on {', '.join(sorted({run.choices['data'] for run in summary.runs}))}"


def sections(summary: Summary) -> list[str]:
    """The page's lines about one task."""
    parts = (
        overview,
        stage_table,
        side_by_side,
        ranking,
        differences,
        figures,
        published_table,
        troubles,
        run_table,
        origin,
    )
    return [line for part in parts for line in part(summary)]


def outline(summaries: Sequence[Summary]) -> str:
    """The summary in a terminal's few lines: what ended how, the best settings, and where the page lies."""
    lines = []
    for summary in summaries:
        lines.append(f"{title_of(summary)}: {counts(summary)}" if len(summaries) > 1 else counts(summary))
        for setting in summary.settings[:TOP]:
            lines.append(f"  {with_interval(setting.monitored):>18}  {setting.name}")
        if len(summary.settings) > TOP:
            lines.append(f"  … and {len(summary.settings) - TOP} more")
        lines += [f"  failed: {', '.join(names)}: {said}" for said, names in failures(summary).items()]
    return "\n".join([*lines, f"summary: {summaries[0].folder / 'summary.html'}"])


def table_as_csv(summaries: Sequence[Summary]) -> str:
    """The settings' table with numbers in full."""
    rows = [csv_row(summary, setting) for summary in summaries for setting in summary.settings]
    if len(summaries) == 1:
        rows = [{key: value for key, value in row.items() if key != "task"} for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def csv_row(summary: Summary, setting: Setting) -> dict[str, Any]:
    row: dict[str, Any] = {"task": summary.runs[0].choices["task"]}
    row |= {key: text(setting.keys[key]) for key in summary.varied} | {"seeds": len(setting.runs)}
    for metric in summary.metrics:
        values = setting.values(metric)
        row |= {metric: mean(values) if values else "", f"{metric} ±": half_interval(values) if values[1:] else ""}
    for name in ("parameters", "seconds/fit"):
        row[name] = mean(setting.values(name)) if setting.values(name) else ""
    return row
