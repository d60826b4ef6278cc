"""The task's part of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from datamodules.captions.facts import DIGITS, fact_of_row
from datamodules.captions.words import GRAMMARS, decode_sentence
from datamodules.scenes.records import COLOURS
from lightning_modules.captioning.decoding import beam_search
from lightning_modules.captioning.pictures import marked, save_attention, save_confusions, save_lengths
from lightning_modules.captioning.scores import bleu_4_of, bleu_signature
from reporting.intervals import bootstrap
from reporting.report import Section

SHOWN = {"bleu_1": "BLEU-1", "bleu_4": "BLEU-4", "bleu_1_paper": "BLEU-1, paper", "bleu_4_paper": "BLEU-4, paper",
         "cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "exact": "exact", "distinct": "distinct"}  # fmt: skip
DRAWS = 1000  # of the bootstrap


def report_sections(module: Any, run: Any) -> list[Section]:
    """Figures beside baselines and published ones, sureness, attention word by word, the best and worst sentences."""
    sections = [Section("Sentences", sentence_table(module, run) + notes(module, run))]
    if (run.folder / "predictions.npz").exists():
        kept = dict(np.load(run.folder / "predictions.npz"))
        sections.append(Section("How sure", sureness(kept, module.network.spec.languages)))
        if "test/exact" in run.metrics:
            sections.append(Section("Scenes", scenes_table(run, module.network.spec.languages)))
            sections.append(confusion_section(kept, module, run))
        sections += attention_sections(kept, module, run)
        sections += example_sections(kept, module, run)
        sections.append(length_section(kept, module, run))
    return sections


def cells(metrics: dict[str, float], before: str, ending: str) -> list[str]:
    names = (f"test/{before}{name}{ending}" for name in SHOWN)
    return [f"{metrics[name]:.3f}" if name in metrics else "" for name in names]


def sentence_table(module: Any, run: Any) -> str:
    """Markdown: beam and greedy sentences, what needs no decoder, and what others published."""
    lines = [f"| sentences | {' | '.join(SHOWN.values())} |", f"|---|{'---:|' * len(SHOWN)}"]
    several = len(module.network.spec.languages) > 1
    ways = {"": f"beam of {module.beam}", "greedy_": "greedy", "nearest_": "the nearest training image's",
            "constant_": "the best one sentence for all", "human_": "people, one beside the others"}  # fmt: skip
    for place, language in enumerate(module.network.spec.languages):
        ending = f"_{language}" if place else ""
        for before, name in ways.items():
            if any(row := cells(run.metrics, before, ending)):
                bold = "**" if not before else ""
                lines.append(f"| {bold}{name}{f' ({language})' if several else ''}{bold} | {' | '.join(row)} |")
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            row = [f"{entry.figures[name]:.3f}" if name in entry.figures else "" for name in SHOWN]
            lines.append(f"| {entry.source} | {' | '.join(row)} |")
    return "\n".join(lines)


def notes(module: Any, run: Any) -> str:
    settings = bleu_signature(run.datamodule.references("test")[module.network.spec.languages[0]])
    text = (
        f"\n\nBLEU is of the whole corpus with all references, `{settings}`; English without signs that stand alone. "
        "“Paper”: without the brevity penalty and with those signs, as Xu et al. do. CIDEr-D is × 10."
    )
    if (loss := run.metrics.get("test/loss")) is not None:
        shuffled = run.metrics["test/loss_shuffled"]
        text += f" {loss:.3f} nats a word, {shuffled:.3f} when told of another image."
    if (worse := run.metrics.get("test/beam_worse")) is not None:
        text += f" The greedy sentence scores better than the beam's for {worse:.1%} of the images."
    if module.presence is not None and "test/exact" in run.metrics:
        text += (
            f" The encoder also learned which digits and colours there are, with weight {module.presence_weight}, and "
            f"nothing else for the first {module.presence_alone:.0%} of training."
        )
    return text + (f" The data: {run.datamodule.note}." if getattr(run.datamodule, "note", "") else "")


def sureness(kept: dict[str, np.ndarray], languages: Any) -> str:
    """Bootstrap intervals over test images, in pairs against the nearest image's sentences."""
    lines = [f"95 % intervals of {DRAWS:,} resamples of the test images.", "", "| figure | value |", "|---|---:|"]

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    for place, language in enumerate(languages):
        end = f"_{language}" if place else ""
        counts, cider = kept[f"item_bleu{end}"], kept[f"item_cider_d{end}"]
        rows = {"BLEU-4": bootstrap(bleu_4_of, counts, resamples=DRAWS)}
        rows["CIDEr-D"] = bootstrap(mean, cider, resamples=DRAWS)
        for name, told in {"nearest": "the nearest image's", "constant": "the best constant one's"}.items():
            if f"{name}_item_bleu{end}" in kept:
                both = counts, kept[f"{name}_item_bleu{end}"]
                rows[f"BLEU-4 less {told}"] = bootstrap(
                    lambda a, b: bleu_4_of(a) - bleu_4_of(b), *both, resamples=DRAWS
                )
                less = cider - kept[f"{name}_item_cider_d{end}"]
                rows[f"CIDEr-D less {told}"] = bootstrap(mean, less, resamples=DRAWS)
        if f"item_exact{end}" in kept:
            rows["exact"] = bootstrap(mean, kept[f"item_exact{end}"], resamples=DRAWS)
        lines += [
            f"| {name}{f' ({language})' if len(languages) > 1 else ''} | {value} |" for name, value in rows.items()
        ]
    return "\n".join(lines)


def scenes_table(run: Any, languages: Sequence[str]) -> str:
    """What the sentences say of test scenes and of those with a pair never trained on; where attention lies."""
    names = {"exact": "the sentence is true", **{f"exact_{n}": f"… of {n} digit{'s' * (n > 1)}" for n in (1, 2, 3)},
             "parsed": "it is a sentence of the grammar", "count": "number of digits", "colour": "colours",
             "digit": "digits", "place": "place", "attention_hit": "attention on the digit at its first word",
             "hit_colour": "… at its colour's word", "hit_digit": "… at its own word",
             "hit_shuffled": "… of another image's attention", "hit_chance": "… of a cell drawn at random",
             "attention_mass": "share of all attention there"}  # fmt: skip
    endings = {"": f" ({languages[0]})" if len(languages) > 1 else ""}
    endings |= {f"_{language}": f" ({language})" for language in languages[1:]}
    heads = [f"{told}{which}" for which in endings.values() for told in ("test", "unseen pairs")]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name, told in names.items():
        keys = [f"test/{name}{ending}{split}" for ending in endings for split in ("", "_unseen")]
        row = [f"{run.metrics[key]:.1%}" if key in run.metrics else "" for key in keys]
        if any(row):
            lines.append(f"| {told} | {' | '.join(row)} |")
    return "\n".join(lines) + (
        "\n\nA hit: the most attended cell lies within one cell of the named digit's ink, and nearer to it than to any "
        "other's, while true words are told. What cannot be read counts as wrong throughout."
    )


def told(kept: dict[str, np.ndarray], module: Any, language: str) -> list[str]:
    return [decode_sentence(codes, module.network.spec) for codes in kept[f"beam_{language}"]]


def confusion_section(kept: dict[str, np.ndarray], module: Any, run: Any) -> Section:
    """Which colours and digits are said for which, where as many digits are named as there are."""
    language = module.network.spec.languages[0]
    colours, digits = np.zeros((len(COLOURS),) * 2, int), np.zeros((DIGITS,) * 2, int)
    for sentence, row in zip(told(kept, module, language), kept["facts"], strict=True):
        said, true = GRAMMARS[language].parse(sentence), fact_of_row(row)
        if said is None or len(said.pairs) != len(true.pairs):
            continue
        for (colour, digit), (own_colour, own_digit) in zip(said.pairs, true.pairs, strict=True):
            colours[own_colour, colour] += 1
            digits[own_digit, digit] += 1
    tables = {"colours": (colours, GRAMMARS["en"].colours), "digits": (digits, [str(n) for n in range(DIGITS)])}
    save_confusions(run.folder / "figures" / "confusions.png", tables)
    text = "Of the captions that name as many digits as there are, digit by digit in the fact's order."
    return Section("What is taken for what", text, "figures/confusions.png")


@torch.no_grad()
def attention_sections(kept: dict[str, np.ndarray], module: Any, run: Any) -> list[Section]:
    """The attention for each word of a test image's sentence, in each language; and the hypotheses of its beam."""
    network, found = module.network, []
    spec, encoder = network.spec, network.encoder
    if not encoder.image:
        return []
    network.eval()
    images = run.datamodule.splits["test"].images
    row = int(kept["facts"][:, 0].argmax())  # where facts are known, one of three digits
    image = np.asarray(images[int(kept["item"][row])])
    annotations = encoder(torch.from_numpy(image.copy())[None].to(module.device))
    for language in spec.languages:
        starts = torch.tensor([spec.start(language)], device=module.device)
        beams = beam_search(network, annotations, starts, module.beam, length_penalty=module.length_penalty)
        codes = beams.codes[0, 0]
        words = [spec.vocabulary[code] for code in codes[1:].tolist() if code > spec.end]
        weights = network.teach(annotations, codes[None, :-1]).weights[0, : len(words)].float().cpu().numpy()
        name = f"figures/attention_{language}.png"
        save_attention(run.folder / name, image, words, weights, encoder.rows, encoder.columns, language)
        lines = [
            "Brighter is looked at more. The beam's sentences:",
            "",
            "| log p | score | sentence |",
            "|---:|---:|---|",
        ]
        for own, log_p, score in zip(beams.codes[0], beams.log_probs[0], beams.scores[0], strict=True):
            if score.isfinite():
                sentence = marked(decode_sentence(own.tolist(), spec), language)
                lines.append(f"| {log_p:.3f} | {score:.3f} | {sentence} |")
        found.append(Section(f"Where it looks ({language})", "\n".join(lines), name))
    return found


def example_sections(kept: dict[str, np.ndarray], module: Any, run: Any) -> list[Section]:
    """Best, median and worst by CIDEr-D."""
    sections = []
    for place, language in enumerate(module.network.spec.languages):
        scores = kept[f"item_cider_d{f'_{language}' if place else ''}"]
        said, order = told(kept, module, language), scores.argsort(kind="stable")
        references = run.datamodule.references("test")[language]
        middle = len(order) // 2
        chosen = {"best": order[::-1][:3], "middle": order[middle : middle + 3], "worst": order[:3]}
        lines = ["| | CIDEr-D | said | one of the true ones |", "|---|---:|---|---|"]
        for name, rows in chosen.items():
            for row in rows:
                true = references[int(kept["item"][row])][0]
                lines.append(
                    f"| {name} | {scores[row]:.2f} | {marked(said[row], language)} | {marked(true, language)} |"
                )
        sections.append(Section(f"Best, middle and worst ({language})", "\n".join(lines)))
    return sections


def length_section(kept: dict[str, np.ndarray], module: Any, run: Any) -> Section:
    language = module.network.spec.languages[0]
    references = run.datamodule.references("test")[language]
    lengths = {
        "said": [len(sentence.split()) for sentence in told(kept, module, language)],
        "true": [len(sentence.split()) for own in references for sentence in own],
    }
    save_lengths(run.folder / "figures" / "lengths.png", lengths)
    return Section("Lengths", f"Words of a sentence ({language}).", "figures/lengths.png")
