"""The stage `judge`: what a network's own drawings are taken for, how they were drawn, and whether they are new."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.strokes.batches import PadDrawings
from datamodules.strokes.forms import Polylines, to_polylines
from datamodules.strokes.sketches import Drawings, SketchDataModule
from datamodules.strokes.symbols import STROKES, SYMBOLS, chance, closure_error, features_inside, frequencies
from lightning_modules.attacks import wilson
from lightning_modules.sketch.baselines import memoryless_nats
from lightning_modules.sketch.bitmaps import bitmap_figures
from lightning_modules.sketch.drawing import draw_classes, has_ended, lines_of, redraw
from lightning_modules.sketch.judge import Judge, Judges, features_of, folds_of, judged, train_judge
from lightning_modules.sketch.likeness import chamfer, spread
from reporting.report import write_text

log = logging.getLogger(__name__)

TEMPERATURES = (0.2, 0.5, 1.0)
MAIN = 0.5  # the temperature of `recognised`, `strokes_right`, `ended`
MOST_DRAWN = 2000  # drawings of each temperature
MOST_COMPARED, MOST_NEW = 200, 100  # drawings that are held against others one by one: of retrieval, of novelty
PIECE = 5000  # training drawings at once
LEAST = 0.6  # accuracy on real drawings of a judge that is listened to
FEW, FOLDS = 1000, 5  # of fewer real drawings all judge: each of the judges by drawings that it was not trained on


def judge_run(module: Any, run: Any) -> None:
    """Logs `test/…`: recognised, recognised_real, ended, novelty, retrieval_top1, nats_memoryless, and of doodles
    strokes_right, faces_right, closure and frequency_p; leaves the tables in `judged.json`."""
    data, network = run.datamodule, module.network
    test = data.splits["test"]
    mixtures = (network.output.out_features - 3) // 6
    train, scale = data.splits["train"], data.scale
    found: dict[str, Any] = {
        "nats_memoryless": memoryless_nats(train.strokes, test.strokes, scale, mixtures, module.seed)
    }
    judge, told = chosen_judge(module, data)
    found |= told
    if is_of_symbols(data.spec.names):
        names = [data.spec.names[label] for label in test.labels]
        real = symbol_figures([to_polylines(strokes) for strokes in test.strokes], names)
        found["real"] = {name: value for name, value in real.items() if name != "frequencies"}
    if network.looks != "encoder":
        table = [drawn_figures(module, data, judge, temperature) for temperature in TEMPERATURES]
        found["temperatures"] = {f"{t:g}": own for t, own in zip(TEMPERATURES, table, strict=True)}
    if network.latent:
        found |= retrieval(module, test, judge, scale)
    path = write_text(run.folder / "judged.json", json.dumps(found, indent=1) + "\n")
    main = found.get("temperatures", {}).get(f"{MAIN:g}", {})
    flat = {name: value for own in (main, found) for name, value in own.items() if isinstance(value, float)}
    if "frequencies" in found.get("temperatures", {}).get("1", {}):
        flat["frequency_p"] = min(entry["p"] for entry in found["temperatures"]["1"]["frequencies"])
    run.metrics |= {f"test/{name}": round(value, 6) for name, value in flat.items()}
    log.info("judged:  %s", "  ".join(f"test/{name} {value:.4f}" for name, value in flat.items()))
    log.info("judge: %s", path)


def chosen_judge(module: Any, data: SketchDataModule) -> tuple[Judge | Judges | None, dict[str, Any]]:
    """A judge, and its accuracy on real drawings with Wilson's interval; None, and the reason, of one that is not to be
    listened to.

    It is trained on training drawings and tested on test drawings. Of few drawings, each on its own, there are five:
    every fifth of all splits is judged by one that was trained on the rest, and the network's own are judged by all.
    """
    if data.spec.classes < 2:
        return None, {"no_judge": f"the drawings have {'one class' if data.spec.classes else 'no classes'}"}
    train, test = data.splits["train"], data.splits["test"]
    if not train.clear.any():
        return None, {"no_judge": "no training drawing is clear enough"}

    def trained(own: Drawings) -> Judge:
        own = own.taken(np.flatnonzero(own.clear))
        how = data.scale, data.spec.classes, module.judge_steps, data.jitter(), module.seed
        return train_judge(own.strokes, own.labels, *how)

    def named_right(judge: Judge, own: Drawings) -> int:
        return int((judged(judge, batch_of(own, data.scale)).numpy() == own.labels).sum()) if len(own.labels) else 0

    whole = Drawings(*(np.concatenate(parts) for parts in zip(*data.splits.values(), strict=True)))
    found: dict[str, Any] = {}
    if data.apart and len(whole.labels) < FEW:
        folds, judges, tested, right = folds_of(whole.labels, FOLDS, module.seed), [], len(whole.labels), 0
        for fold in range(FOLDS):
            judges.append(trained(whole.taken(np.flatnonzero(folds != fold))))
            held_out = whole.taken(np.flatnonzero(folds == fold))
            right += named_right(judges[-1], held_out)
        judge, found["judges"] = Judges(judges).eval(), FOLDS
    else:
        judge, tested = trained(train), len(test.labels)
        right = named_right(judge, test)
    low, high = wilson(right, tested)
    found |= {"recognised_real": right / tested, "real_drawings": tested, "recognised_real_interval": [low, high]}
    if right / tested < LEAST:
        found["no_judge"] = f"the judge names {right / tested:.1%} of real drawings right, less than {LEAST:.0%}"
        log.warning("judge: %s: `recognised` is left out.", found["no_judge"])
        return None, found
    return judge, found


def batch_of(split: Drawings, scale: float) -> Tensor:
    """All drawings of a split as stroke-5."""
    return PadDrawings(scale)((split.strokes, split.labels), np.arange(len(split.labels)), 0).strokes


def drawn_figures(
    module: Any, data: SketchDataModule, judge: Judge | Judges | None, temperature: float
) -> dict[str, Any]:
    """What is found of the network's drawings at a temperature."""
    network, spec = module.network, data.spec
    classes = max(spec.classes, 1)
    each = max(1, min(module.judged, MOST_DRAWN // classes))
    labels = torch.arange(classes).repeat_interleave(each)
    strokes = draw_classes(network, labels, temperature, module.seed).cpu()
    lines, labels = lines_of(strokes, spec.scale), labels.numpy()
    found: dict[str, Any] = {"ended": float(has_ended(strokes).mean()), "drawings": len(labels)}
    if judge is not None:
        taken = judged(judge, strokes).numpy()
        found["recognised"] = float((taken == labels).mean())
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (labels, taken), 1)
        found["confusions"] = counts.tolist()
    found |= bitmap_figures(data, lines, labels, module.seed)
    if is_of_symbols(spec.names):
        found |= symbol_figures(lines, [spec.names[label] for label in labels])
    if temperature == MAIN:
        found["novelty"] = novelty(lines, labels, data)
    return found


def is_of_symbols(names: Sequence[str]) -> bool:
    """Are these classes among those whose truth is known?"""
    return bool(names) and set(names) <= set(SYMBOLS)


def symbol_figures(lines: Sequence[Polylines], names: Sequence[str]) -> dict[str, Any]:
    """Of doodles, whose truth is known: the number of strokes, faces, closed squares, and how they were drawn."""
    right = [len(own) == STROKES[name] for own, name in zip(lines, names, strict=True)]
    found: dict[str, Any] = {"strokes_right": float(np.mean(right))}
    by_name = {n: [own for own, name in zip(lines, names, strict=True) if name == n] for n in dict.fromkeys(names)}
    if "face" in by_name:
        whole = [len(own) == STROKES["face"] and len(own[0]) > 2 for own in by_name["face"]]
        inside = [ok and features_inside(own) for ok, own in zip(whole, by_name["face"], strict=True)]
        found["faces_right"] = float(np.mean(inside))
    if squares := [closure_error(own[0]) for own in by_name.get("square", []) if own and len(own[0]) > 1]:
        found["closure"] = float(np.median(squares))
    found["frequencies"] = [
        {"class": name, "question": question, "counts": counts.tolist(), "p": chance(counts)}
        for name, own in by_name.items()
        for question, counts in frequencies(own, name).items()
    ]
    return found


def novelty(lines: Sequence[Polylines], labels: np.ndarray, data: SketchDataModule) -> float:
    """Median distance of drawn ones to the nearest training drawing of their class, over that of real test drawings:
    near 1 as new as those, near 0 copied."""
    test = data.splits["test"]
    real = [to_polylines(strokes) for strokes in test.strokes]
    drawn, held = (
        own_class_distances(own, ownlabels, data.splits["train"])
        for own, ownlabels in ((lines, labels), (real, test.labels))
    )
    return float(np.median(drawn) / max(np.median(held), 1e-9))


def own_class_distances(lines: Sequence[Polylines], labels: np.ndarray, train: Drawings) -> np.ndarray:
    """Of up to `MOST_NEW` drawings the distance to the nearest of all training drawings of their class: of fewer, most
    copies would not be found."""
    rows, found = spread(len(lines), MOST_NEW), []
    rows = rows[[bool(lines[row]) for row in rows]]
    for label in np.unique(labels[rows]):
        own, drawn = train.strokes[train.labels == label], [lines[row] for row in rows if labels[row] == label]
        pieces = (own[first : first + PIECE] for first in range(0, len(own), PIECE))
        nearest = [chamfer(drawn, [to_polylines(strokes) for strokes in piece]).min(1) for piece in pieces]
        found.append(np.min(nearest, 0))
    return np.concatenate(found) if found else np.zeros(1)


def retrieval(module: Any, test: Drawings, judge: Judge | Judges | None, scale: float) -> dict[str, float]:
    """How often the test drawing that is nearest to a reconstruction, at temperature 0.1, is the one it is of: by the
    judge's features, or by Chamfer distance in the unit box where there is no judge."""
    own = test.taken(spread(len(test.labels), MOST_COMPARED))
    strokes = batch_of(own, scale)
    labels = torch.from_numpy(own.labels) if module.network.spec.classes else None
    redrawn = redraw(module.network, strokes, labels, 0.1, module.seed).cpu()
    if judge is not None:
        found = torch.cdist(features_of(judge, redrawn), features_of(judge, strokes)).argmin(1).numpy()
    else:
        lines = [lines or [np.zeros((1, 2))] for lines in lines_of(redrawn, scale)]
        found = chamfer(lines, lines_of(strokes, scale)).argmin(1)
    chances = {"retrieval_chance": 1 / len(strokes)}
    if labels is not None:
        chances["retrieval_class_alone"] = len(np.unique(own.labels)) / len(strokes)
    return {"retrieval_top1": float((found == np.arange(len(strokes))).mean()), **chances}


def shares(counts: Sequence[int]) -> str:
    return " : ".join(str(count) for count in counts)
