"""Defences side by side: their table, and the difference of their robust accuracies over items and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_modules.classification.robustness.stage import names_of
from lightning_modules.contrastive.attack import SPLITS, folder_of
from reporting.folder import read_json
from reporting.predictions import read_predictions
from reporting.report import ComparedRun, Section

RESAMPLES = 2000
BASE = "cross_entropy"  # what the others are compared with, where it is there; else the first
VOID = 2  # times chance: below it a network names nothing, and its robustness says nothing
COLUMNS = ("clean, seen", "robust, seen", "clean, unseen", "robust, unseen")


class Attacked(NamedTuple):
    """A run under attack: for each item of a split, the seen names' and the unseen ones', is it right when clean, and
    is it also right under every attack of the ball? And what was attacked with, in words."""

    clean: dict[str, np.ndarray]
    robust: dict[str, np.ndarray]
    items: dict[str, np.ndarray]
    how: str


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def comparison_sections(runs: Sequence[ComparedRun]) -> list[Section]:
    """The table of the defences, and each one's difference from one of them; nothing where nothing was attacked."""
    found = {run.name: attacked(run) for run in runs}
    runs = [run for run in runs if found[run.name] is not None]
    if not runs:
        return []
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(run.config.task.module.defence, []).append(run)
    sections = [Section("Defences", defence_table(groups, found))]
    if len(groups) > 1:
        sections.append(Section("Differences under attack, over items and seeds", difference_table(groups, found)))
    return sections


def attacked(run: ComparedRun) -> Attacked | None:
    """What the stage `attack` left; None where it did not run."""
    clean, robust, items = {}, {}, {}
    for split in SPLITS:
        folder = folder_of(run.folder, split)
        if not (folder / "attack.npz").is_file():
            continue
        arrays = read_predictions(folder, "attack.npz")
        right = arrays["logits"].argmax(1) == arrays["label"]
        inside = [name for name in names_of(arrays) if name != "cw"]  # which keeps to no ball
        withstood = [arrays[f"logits_{name}"].argmax(1) == arrays["label"] for name in inside]
        clean[split], robust[split] = right, np.logical_and.reduce([right, *withstood])
        items[split] = arrays["item"]
    return Attacked(clean, robust, items, described(read_json(run.folder / "attack.json"))) if clean else None


def described(settings: Mapping[str, Any]) -> str:
    """The ball, and the attacks of it with their numbers."""
    inside = [name for name in settings["attacks"] if name != "cw"]
    steps = "apgd_steps" if "apgd_ce" in inside else "steps"
    restarts = "apgd_restarts" if "apgd_ce" in inside else "restarts"
    return (
        f"{settings['norm']} ≤ {settings['eps']:.4g}: {', '.join(inside)}, {settings[steps]} steps × "
        f"{settings[restarts]}"
    )


def defence_table(groups: Mapping[str, Sequence[ComparedRun]], found: Mapping[str, Attacked]) -> str:
    """Markdown: means over the seeds of each defence."""
    lines = [f"| defence | runs | {' | '.join(COLUMNS)} | trained | minutes |", "|---|---:|" + "---:|" * 6]
    for defence, runs in groups.items():
        cells = []
        for split in SPLITS:
            for which in ("clean", "robust"):
                own = [getattr(found[run.name], which)[split].mean() for run in runs
                       if split in found[run.name].clean]  # fmt: skip
                cells.append(f"{np.mean(own):.1%}" if own else "—")
        trained = f"{int(np.mean([run.metrics['parameters'] for run in runs])):,}"
        minutes = [run.metrics["seconds/fit"] / 60 for run in runs if "seconds/fit" in run.metrics]
        time = f"{np.mean(minutes):.1f}" if minutes else "—"
        lines.append(f"| {defence} | {len(runs)} | {' | '.join(cells)} | {trained} | {time} |")
    count = {split: len(items) for split, items in found_items(found).items()}
    how = "; or ".join(dict.fromkeys(found[run.name].how for runs in groups.values() for run in runs))
    said = " and ".join(f"{number:,} images of {'seen' if split == 'test' else 'unseen'} names"
                        for split, number in count.items())  # fmt: skip
    names = len(runs[0].predictions["probabilities"][0])
    text = (
        f"Robust is an image that is right when clean and under every attack tried in the ball, {how}. Of {said}; "
        f"chance is {1 / names:.1%}. Trained: parameters of the towers that training moved."
    )
    return "\n".join([text, "", *lines])


def found_items(found: Mapping[str, Attacked]) -> dict[str, np.ndarray]:
    return next(some.items for some in found.values() if some is not None)


def difference_table(groups: Mapping[str, Sequence[ComparedRun]], found: Mapping[str, Attacked]) -> str:
    """Markdown: of each defence its difference from cross-entropy's, or from the first's, seed by seed and item by
    item."""
    (first, ours), *others = sorted(groups.items(), key=lambda group: group[0] != BASE)
    lines = [f"| less {first} | images | seeds | difference, robust | 95 % interval | |", "|---|---|---:|---:|---|---|"]
    names = len(ours[0].predictions["probabilities"][0])
    for split in SPLITS:
        for defence, runs in others:
            pairs = paired(runs, ours)
            if not pairs or any(split not in found[run.name].clean for pair in pairs for run in pair):
                continue
            if any(found[a.name].how != found[b.name].how for a, b in pairs):
                lines.append(f"| {defence} | {split} | | | attacked in another way | |")
                continue
            if any(not np.array_equal(*(found[run.name].items[split] for run in pair)) for pair in pairs):
                lines.append(f"| {defence} | {split} | | | attacked on other images | |")
                continue
            gaps = np.stack([found[a.name].robust[split].astype(float) - found[b.name].robust[split] for a, b in pairs])
            interval = bootstrap_both(gaps)
            clean = np.mean([found[a.name].clean[split].mean() for a, _ in pairs])
            verdict = "not 0" if interval.low > 0 or interval.high < 0 else ""
            if clean < VOID / names:
                verdict = f"void: it names {clean:.1%} of the clean images, below {VOID} × chance"
            if any(a.config.task.module.start != b.config.task.module.start for a, b in pairs):
                verdict += "; begun from another model" if verdict else "begun from another model"
            which = "seen names" if split == "test" else "unseen names"
            lines.append(
                f"| {defence} | {which}, {gaps.shape[1]:,} | {len(gaps)} | {interval.mean:+.1%} | "
                f"{interval.low:+.1%} … {interval.high:+.1%} | {verdict} |"
            )
    text = (
        f"Runs of the same seed are compared image by image; intervals are of {RESAMPLES:,} bootstrap samples that "
        "draw seeds and images anew, each with replacement. With one seed they tell nothing of another training."
    )
    return "\n".join([text, "", *lines])


def paired(runs: Sequence[ComparedRun], others: Sequence[ComparedRun]) -> list[tuple[ComparedRun, ComparedRun]]:
    """Runs of the same seed."""
    by_seed = {run.config.seed: run for run in others}
    return [(run, by_seed[run.config.seed]) for run in runs if run.config.seed in by_seed]


def bootstrap_both(gaps: np.ndarray, seed: int = 0) -> Interval:
    """The mean of `gaps` (seeds, items) and its 95 % percentile interval, seeds and items drawn anew."""
    rng, (seeds, items) = np.random.default_rng(seed), gaps.shape
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        chosen = gaps[rng.integers(0, seeds, seeds)].mean(0)
        means[number] = chosen[rng.integers(0, items, items)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(gaps.mean()), float(low), float(high))
