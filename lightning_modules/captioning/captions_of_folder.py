"""The stage `caption`: sentences about the pictures of a folder, as JSON and as a page."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.errors import UsageError
from datamodules.images.shared.pictures import read_folder
from datamodules.spec import CaptionSpec
from lightning_modules.captioning.decoding import beam_search, draw
from lightning_modules.captioning.pictures import marked, save_attention
from reporting.report import page, write_text

log = logging.getLogger(__name__)

FOLDER = "captions"


def check_caption(run: Any, spec: CaptionSpec) -> None:
    """Raises UsageError when there is no folder, no image in it, one that does not open, or no such language."""
    if run.config.images is None:
        raise UsageError("The stage caption needs images=FOLDER, with the pictures to describe.")
    if run.config.language is not None:
        spec.start(run.config.language)
    if run.config.temperature < 0:
        raise UsageError(f"temperature is {run.config.temperature}, but it must be a number, 0 or more.")
    read_folder(Path(run.config.images), spec.height, spec.width)


def caption_folder(module: Any, run: Any) -> None:
    """Writes `captions/captions.json` and `captions/captions.html` into the run's folder."""
    network, config, folder = module.network, run.config, run.folder / FOLDER
    spec, encoder = network.spec, network.encoder
    language = config.language or spec.languages[0]
    network.eval()
    folder.mkdir(exist_ok=True)
    found, lines = {}, ["# Captions", ""]
    for name, image in read_folder(Path(config.images), spec.height, spec.width).items():
        record = describe(module, image, language, config.temperature)
        found[name] = record
        best = record["beams"][0]
        words = [step["word"] for step in best["words"]]
        weights = np.array([step["attention"] for step in best["words"]]).reshape(len(words), -1)
        save_attention(folder / f"{name}.png", image, words, weights, encoder.rows, encoder.columns, language)
        # In HTML throughout: a name of a file must not be ordered with the Persian beside it.
        lines += [f"## <bdi>{name}</bdi>", "", f"![{name}]({name}.png)", "", "| log p | score | sentence |"]
        lines += ["|---:|---:|---|"]
        lines += [
            f"| {b['log_p']:.3f} | {b['score']:.3f} | {marked(b['sentence'], language)} |" for b in record["beams"]
        ]
        if "drawn" in record:
            lines += ["", f"Drawn at temperature {config.temperature}: {marked(record['drawn'], language)}"]
        lines.append("")
    text = json.dumps({"language": language, "beam": module.beam, "images": found}, ensure_ascii=False, indent=1)
    write_text(folder / "captions.json", text + "\n")
    write_text(folder / "captions.html", page("Captions", "\n".join(lines), folder))
    log.info("captions: %s", folder / "captions.html")


@torch.no_grad()
def describe(module: Any, image: np.ndarray, language: str, temperature: float) -> dict[str, Any]:
    """Of one image (3, H, W): every beam's sentence with its score and where was looked for each word, `<end>` last."""
    network, spec = module.network, module.network.spec
    annotations = network.encoder(torch.from_numpy(image.copy())[None].to(module.device))
    starts = torch.tensor([spec.start(language)], device=module.device)
    beams = beam_search(network, annotations, starts, module.beam, length_penalty=module.length_penalty)
    record: dict[str, Any] = {"beams": []}
    for codes, log_p, score in zip(beams.codes[0], beams.log_probs[0].tolist(), beams.scores[0].tolist(), strict=True):
        if score == -float("inf"):
            continue
        weights = network.teach(annotations, codes[None, :-1]).weights[0].float().cpu()
        said = [code for code in codes[1:].tolist() if code != spec.pad]
        steps = [
            {"word": spec.vocabulary[code], "attention": [round(value, 5) for value in looked]}
            for code, looked in zip(said, weights.tolist(), strict=False)
        ]
        sentence = " ".join(step["word"] for step in steps if step["word"] != spec.vocabulary[spec.end])
        record["beams"].append({"sentence": sentence, "log_p": log_p, "score": score, "words": steps})
    if temperature:
        generator = torch.Generator(module.device).manual_seed(module.seed)
        codes = draw(network, annotations, starts, temperature=temperature, generator=generator)[0, 1:].tolist()
        record["drawn"] = " ".join(spec.vocabulary[code] for code in codes if code > spec.end)
    return record
