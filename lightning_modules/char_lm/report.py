"""The task's part of a run's report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.text.text import SCORINGS
from datamodules.text.vocabulary import decode, encode
from lightning_modules.char_lm import analysis
from lightning_modules.char_lm.figures import (
    Block,
    can_be_drawn,
    coloured_html,
    save_along,
    save_bars,
    save_coloured_text,
    save_quotation,
    save_window_curves,
)
from lightning_modules.char_lm.recurrent import RecurrentLM
from reporting.predictions import read_predictions
from reporting.report import Section

PAGE_TOKENS = 1800  # of the page coloured by surprisal
UNIT_TOKENS, UNITS, UNIT_SAMPLE = 400, 4, 8000  # shown for each unit; units; read to choose them
MOST_BITS = 8.0  # of the colour scale
RUNS = {"char": (4, 6, 8, 12, 16, 24, 32, 48, 64), "word": (1, 2, 3, 4, 6, 8, 12, 16)}


def report_sections(network: RecurrentLM, run: Any) -> list[Section]:
    """Likelihood beside published figures, generated text, and every figure the run's stages left material for."""
    sections = [Section("Likelihood", likelihood_table(network, run) + f"\n\nThe data: {run.datamodule.note}.")]
    generated = run.folder / "generated.json"
    drawn = json.loads(generated.read_text(encoding="utf-8")) if generated.exists() else []
    if drawn:
        sections.append(Section("Generated text", generated_text(drawn)))
        sections.append(quotation_section(network, run, drawn))
    if (run.folder / "predictions.npz").exists():
        tested = read_predictions(run.folder)
        sections += [
            surprise_section(network, run, tested),
            groups_section(network, run, tested),
            *window_sections(run, tested),
        ]
    if "test/loss_dynamic" in run.metrics:
        sections.append(adapting_section(run))
    sections.append(units_section(network, run))
    return sections


def likelihood_table(network: RecurrentLM, run: Any) -> str:
    """Markdown: ours on each split, both ways to score, a guess by nothing, and what others published."""
    unit, metrics, model = network.spec.unit, run.metrics, run.config.choices.model
    scoring = run.datamodule.scoring
    rows = [("uniform guess", math.log(len(network.spec.tokens)), None, "")]
    names = {"train": "train/{}", "val": "val/{}", "test, carried": "test/{}_carried", "test, reset": "test/{}_reset",
             "test, dynamic": "test/{}_dynamic"}  # fmt: skip
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


def quotation_section(network: RecurrentLM, run: Any, drawn: list[dict[str, Any]]) -> Section:
    """Does it quote? Runs of generated text that stand in the training text, against those of held-out text."""
    spec, data = network.spec, run.datamodule
    source = data.codes[slice(*data.stretch("train"))]
    texts = [encode(entry["text"], spec) for entry in drawn]
    groups: dict[str, list[np.ndarray]] = {}
    for entry, codes in zip(drawn, texts, strict=True):
        groups.setdefault(f"temperature {entry['temperature']:g}", []).append(codes)
    number, start, length = analysis.longest_shared(texts, source)
    first, last = data.stretch("test")
    groups["held-out text"] = [data.codes[first:last]]
    lengths = RUNS[spec.unit]
    save_quotation(
        run.folder / "figures" / "quotation.png", lengths, analysis.shared_fractions(groups, source, lengths), spec.unit
    )
    quote = decode(texts[number][start : start + length], spec).replace("\n", "\n    ")
    text = (
        f"Runs of generated text that stand in the training text as they are, by their length, beside the same of text "
        f"that was held out: a network that quotes lies above it. The longest run, {length} {spec.unit}s at "
        f"temperature {drawn[number]['temperature']:g}:\n\n    {quote}"
    )
    return Section("Is it quoting?", text, "figures/quotation.png")


def surprise_section(network: RecurrentLM, run: Any, tested: dict[str, np.ndarray]) -> Section:
    """A page of held-out text, each token on a ground that is the darker the more bits it cost."""
    spec = network.spec
    codes, nats = tested["code_carried"][:PAGE_TOKENS], tested["nats_carried"][:PAGE_TOKENS]
    bits = nats / math.log(2)
    block = Block("the test stretch from its beginning, state carried", shown_tokens(codes, spec), bits / MOST_BITS)
    text = (
        f"White cost nothing, the darkest {MOST_BITS:g} bits or more; the mean of this page is {bits.mean():.2f} bits "
        f"per {spec.unit}."
    )
    return coloured_section("Surprise", text, [block], "Oranges", run.folder, "surprise")


def shown_tokens(codes: np.ndarray, spec: Any) -> list[str]:
    """The tokens as a page shows them: words with a blank after them."""
    tokens = [spec.tokens[code] for code in codes]
    return tokens if spec.unit == "char" else [token if token == "\n" else f"{token} " for token in tokens]


def coloured_section(title: str, text: str, blocks: Sequence[Block], colours: str, folder: Path, name: str) -> Section:
    """A picture where its font has the script, else the text itself in HTML."""
    if not all(can_be_drawn(block.tokens) for block in blocks):
        return Section(title, f"{text}\n\n{coloured_html(blocks, colours)}")
    save_coloured_text(folder / "figures" / f"{name}.png", blocks, colours)
    return Section(title, text, f"figures/{name}.png")


def groups_section(network: RecurrentLM, run: Any, tested: dict[str, np.ndarray]) -> Section:
    """Loss by class of token, and of characters by place in the word."""
    spec, codes, nats = network.spec, tested["code_carried"], tested["nats_carried"]
    charts = {"by class": analysis.class_means(codes, nats, spec)}
    if spec.unit == "char":
        charts["by place in a word"] = analysis.place_means(codes, nats, spec)
    save_bars(run.folder / "figures" / "groups.png", charts, spec.unit)
    text = f"Mean nats of the test stretch, state carried; above each bar the number of {spec.unit}s."
    if spec.unit == "char":
        text += " A word's letters by their place in it, and the character after its last."
    return Section("Where the loss is", text, "figures/groups.png")


def window_sections(run: Any, tested: dict[str, np.ndarray]) -> list[Section]:
    """What a reset costs: nats by place in the window, both ways; nothing for a stretch shorter than a window."""
    window, unit = run.datamodule.window, run.datamodule.unit
    curves = {scoring: analysis.window_means(tested[f"nats_{scoring}"], window) for scoring in SCORINGS}
    if not all(len(means) for means in curves.values()):
        return []
    save_window_curves(run.folder / "figures" / "windows.png", curves, unit)
    text = (
        f"The same {unit}s of the test stretch, scored in windows of {window} from a zero state, and with the state "
        f"carried through: how soon a network that starts from nothing catches up."
    )
    return [Section("Carried and reset", text, "figures/windows.png")]


def adapting_section(run: Any) -> Section:
    """What weights that go on learning gain along the test stretch."""
    curves = {"dynamic": read_predictions(run.folder, "adapted.npz")["nats"]}
    if (run.folder / "predictions.npz").exists():
        curves["carried"] = read_predictions(run.folder)["nats_carried"]
    unit, lr, window = run.datamodule.unit, run.metrics["adapt/lr"], run.metrics["adapt/window"]
    save_along(run.folder / "figures" / "adapting.png", curves, unit)
    text = (
        "The test stretch from its beginning to its end: scored by the trained weights, state carried, and by weights "
        f"that after every {window} {unit}s, once these are scored, take a step of gradient descent on them (dynamic "
        f"evaluation, Krause et al. 2018; the learning rate, {lr:g}, is the best on validation text)."
    )
    return Section("Going on to learn", text, "figures/adapting.png")


def units_section(network: RecurrentLM, run: Any) -> Section:
    """Activations of chosen units along held-out text, as in Karpathy, Johnson & Fei-Fei 2015."""
    first, last = run.datamodule.stretch("test")
    codes = run.datamodule.codes[first : min(last, first + UNIT_SAMPLE)]
    activations = analysis.unit_activations(network, codes)
    features = analysis.line_features([network.spec.tokens[code] for code in codes])
    tokens = shown_tokens(codes[:UNIT_TOKENS], network.spec)
    blocks = []
    for unit, name, correlation in analysis.chosen_units(activations, features, UNITS):
        title = f"unit {unit}: follows {name}, correlation {correlation:+.2f}"
        blocks.append(Block(title, tokens, 0.5 + 0.4 * activations[:UNIT_TOKENS, unit]))
    text = (
        f"The last layer's units whose activation, over {len(codes):,} {network.spec.unit}s of the test stretch, "
        "follows a feature of the text most closely; blue −1, grey 0, red +1, once that token is read (the "
        "picture is that of Karpathy, Johnson & Fei-Fei 2015, arXiv 1506.02078)."
    )
    return coloured_section("Units", text, blocks, "coolwarm", run.folder, "units")
