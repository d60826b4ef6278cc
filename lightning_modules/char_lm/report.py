"""The task's part of a run's report."""

from __future__ import annotations

import json
import math
from typing import Any

from lightning_modules.char_lm.recurrent import RecurrentLM
from reporting.report import Section


def report_sections(network: RecurrentLM, run: Any) -> list[Section]:
    """Likelihood beside published figures, generated text, and every figure the run's stages left material for."""
    sections = [Section("Likelihood", likelihood_table(network, run) + f"\n\nThe data: {run.datamodule.note}.")]
    generated = run.folder / "generated.json"
    if generated.exists():
        sections.append(Section("Generated text", generated_text(json.loads(generated.read_text(encoding="utf-8")))))
    return sections


def likelihood_table(network: RecurrentLM, run: Any) -> str:
    """Markdown: ours on each split, both ways to score, a guess by nothing, and what others published."""
    unit, metrics, model = network.spec.unit, run.metrics, run.config.choices.model
    scoring = run.datamodule.scoring
    rows = [("uniform guess", math.log(len(network.spec.tokens)), None, "")]
    names = {"train": "train/{}", "val": "val/{}", "test, carried": "test/{}_carried", "test, reset": "test/{}_reset"}
    for name, key in names.items():
        if key.format("loss") in metrics:
            how = {"train": ", while training", "val": f", {scoring}"}.get(name, "")
            loss, accuracy = (metrics[key.format(figure)] for figure in ("loss", "accuracy"))
            rows.append((f"**{model}, {name}{how}**", loss, accuracy, "this run"))
    rows += published_rows(run)
    lines = [f"| | nats/{unit} | perplexity | bits/{unit} | accuracy | |", "|---|---:|---:|---:|---:|---|"]
    for name, loss, accuracy, source in rows:
        right = "" if accuracy is None else f"{accuracy:.2%}"
        lines.append(f"| {name} | {loss:.4f} | {math.exp(loss):.3f} | {loss / math.log(2):.4f} | {right} | {source} |")
    return "\n".join(lines)


def published_rows(run: Any) -> list[tuple[str, float, float | None, str]]:
    """Others' figures on this data: name, nats, accuracy if they gave it, source."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            for name, value in entry.figures.items():
                found.setdefault((f"{name}, {entry.split}", entry.source), {})[entry.metric] = value
    rows = []
    for (name, source), figures in found.items():
        loss = figures["loss"] if "loss" in figures else math.log(figures["perplexity"])
        rows.append((name, loss, figures.get("accuracy"), source))
    return rows


def generated_text(drawn: list[dict[str, Any]]) -> str:
    """Markdown: each text as it is, under its temperature, the prompt first."""
    parts = []
    for entry in drawn:
        text = (entry["prompt"] + entry["text"]).replace("\n", "\n    ")
        parts.append(f"Temperature {entry['temperature']:g}, from the prompt {entry['prompt']!r}:\n\n    {text}")
    return "\n\n".join(parts)
