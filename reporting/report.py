"""The report of one run: report.md, and report.html with everything in the one file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markdown import markdown
from omegaconf import DictConfig

from datamodules.files import whole_file

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
  h1 {{ font-size: 1.6rem; }}
  h2 {{ font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }}
  img {{ max-width: 100%; height: auto; display: block; margin: 0.5rem auto; }}
  span[dir="rtl"] {{ display: block; text-align: right; }}
  .wide {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  td, th {{ padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #eee; text-align: left; vertical-align: top; }}
  pre {{ white-space: pre-wrap; background: #f6f6f6; padding: 0.5rem 0.8rem; }}
  td[style*="right"] {{ white-space: nowrap; }}
  code {{ overflow-wrap: anywhere; font-size: 0.9em; }}
  :root {{ color-scheme: light dark; }}
  @media (prefers-color-scheme: dark) {{
    body {{ background: #16181c; color: #ddd; }}
    a {{ color: #8ab4f8; }}
    pre {{ background: #22252b; }}
    h2, td, th {{ border-color: #3a3d44; }}
    img {{ background: #fff; padding: 0.3rem; border-radius: 0.3rem; box-sizing: border-box; }}
  }}
</style>
{body}
</html>
"""


class Section(NamedTuple):
    """A heading, Markdown text, and a figure's path relative to the run's folder."""

    title: str
    text: str
    figure: str | None = None


class ComparedRun(NamedTuple):
    """A finished run beside others: a short name, its configuration, final figures and predictions."""

    name: str
    folder: Path
    config: DictConfig
    metrics: dict[str, float]
    predictions: dict[str, np.ndarray]


def number(value: float) -> str:
    """A figure as the report prints it: whole numbers whole, others to four places."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def write_report(
    folder: Path, title: str, record: Mapping[str, Any], metrics: Mapping[str, float], sections: Sequence[Section]
) -> Path:
    """Writes report.md and report.html; returns the latter's path.

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
    lines += ["## Figures of this run", "", "| name | value |", "|---|---:|"]
    lines += [f"| {name} | {number(value)} |" for name, value in sorted(metrics.items())]
    lines += ["", "## How it was made", "", "| what | with |", "|---|---|"]
    lines += [f"| {name} | `{value}` |" for name, value in record.items()]
    text = "\n".join(lines) + "\n"
    write_text(folder / "report.md", text)
    return write_text(folder / "report.html", page(title, text, folder))


def page(title: str, text: str, folder: Path) -> str:
    """Markdown → one HTML page that needs no other file: the figures it names are put into it."""

    def embedded(match: re.Match[str]) -> str:
        picture = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{picture}"'

    body = re.sub(r'src="([^":]+\.png)"', embedded, markdown(text, extensions=["tables"]))
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return PAGE.format(title=html.escape(title), body=body)


def write_text(path: Path, text: str) -> Path:
    """Writes a file, whole or not at all; returns its path."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
