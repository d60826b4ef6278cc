"""The answer of a sweep: summary.md, summary.csv, summary.html and figures, from whatever runs a folder holds.

`python -m reporting.summary DIR` at any time; `python -m reporting.summary DIR DIR … --to DIR` over several sweeps.
A sweep writes it by itself when it ends, also when it is interrupted.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import Arguments, UsageError
from reporting.report import page, write_text
from reporting.runs import Summary, read_summary, text, with_interval
from reporting.statistics import half_interval, mean
from reporting.summary_sections import (
    counts,
    differences,
    failures,
    figures,
    origin,
    overview,
    published_table,
    ranking,
    run_table,
    troubles,
)

TOP = 5  # rows that a sweep's last lines show


def write_summary(folders: Sequence[Path], to: Path) -> Summary:
    """Summarises the runs under `folders` in the folder `to`.

    Raises:
        UsageError: there is no run, or runs of several tasks.
    """
    summary = read_summary(folders, to)
    to.mkdir(parents=True, exist_ok=True)
    data = sorted({run.choices["data"] for run in summary.runs})
    title = f"Summary: {summary.runs[0].choices['task']} on {', '.join(data)}"
    lines = [f"# {title}", "", *overview(summary), *ranking(summary), *differences(summary), *figures(summary)]
    lines += [*published_table(summary), *troubles(summary), *run_table(summary), *origin(summary)]
    text_of_page = "\n".join(lines) + "\n"
    write_text(to / "summary.md", text_of_page)
    write_text(to / "summary.csv", table_as_csv(summary))
    write_text(to / "summary.html", page(title, text_of_page, to))
    return summary


def outline(summary: Summary) -> str:
    """The summary in a terminal's few lines: what ended how, the best settings, and where the page lies."""
    lines = [counts(summary)]
    for setting in summary.settings[:TOP]:
        lines.append(f"  {with_interval(setting.monitored):>18}  {setting.name}")
    if len(summary.settings) > TOP:
        lines.append(f"  … and {len(summary.settings) - TOP} more")
    lines += [f"  failed: {', '.join(names)}: {said}" for said, names in failures(summary).items()]
    return "\n".join([*lines, f"summary: {summary.folder / 'summary.html'}"])


def table_as_csv(summary: Summary) -> str:
    """The settings' table with numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measured = [column for metric in summary.metrics for column in (metric, f"{metric} ±")]
    writer.writerow([*summary.varied, "seeds", *measured, "parameters", "seconds/fit"])
    for setting in summary.settings:
        row = [*(text(setting.keys[key]) for key in summary.varied), len(setting.runs)]
        for metric in summary.metrics:
            values = setting.values(metric)
            row += [mean(values) if values else "", half_interval(values) if len(values) > 1 else ""]
        for name in ("parameters", "seconds/fit"):
            row.append(mean(setting.values(name)) if setting.values(name) else "")
        writer.writerow(row)
    return out.getvalue()


def main(words_given: Sequence[str]) -> None:
    parser = Arguments(prog="python -m reporting.summary", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", type=Path, help="a sweep's folder, or any folder that holds runs")
    parser.add_argument("--to", type=Path, help="where the summary goes; needed for several folders")
    given = parser.parse_args(words_given)
    try:
        if len(given.folder) > 1 and given.to is None:
            raise UsageError("Several folders: say where their summary goes, with --to FOLDER.")
        print(outline(write_summary(given.folder, given.to or given.folder[0])))
    except UsageError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"The summary cannot be written: {error}.")


if __name__ == "__main__":
    main(sys.argv[1:])
