"""The report of one run: report.md in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A heading, Markdown text, and a figure's path relative to the run's folder."""

    title: str
    text: str
    figure: str | None = None


def number(value: float) -> str:
    """A figure as the report prints it: whole numbers whole, others to four places."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def write_report(
    folder: Path, title: str, record: Mapping[str, Any], metrics: Mapping, sections: Sequence[Section]
) -> Path:
    """Writes report.md and returns its path.

    Args:
        folder: the run's.
        record: where the figures come from, in words: command, machine, commit, versions.
        metrics: final figures by name.
        sections: what the task shows.
    """
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", "", section.text, ""]
        if section.figure:
            lines += [f"![{section.title}]({section.figure})", ""]
    lines += ["## Figures of this run", "", "| | |", "|---|---:|"]
    lines += [f"| {name} | {number(value)} |" for name, value in sorted(metrics.items())]
    lines += ["", "## How it was made", "", "| | |", "|---|---|"]
    lines += [f"| {name} | `{value}` |" for name, value in record.items()]
    path = folder / "report.md"
    unfinished = path.with_name(".report.md")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path
