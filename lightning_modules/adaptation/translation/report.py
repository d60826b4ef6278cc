"""What a report shows of translations: both ways and back, over a training, the players' losses, what lies nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from lightning_modules.adaptation.network import TARGET
from lightning_modules.adaptation.predicting import outputs
from lightning_modules.adaptation.translation.translated import FOLLOWED, as_range, as_uint8, snapshots_of, translations
from reporting.figures import read_curves, save, save_grids
from reporting.report import Section

SHOWN = 12  # images in a row
PLAYERS = {
    "fooling": "generators: fooling",
    "cycle": "generators: cycle",
    "identity": "generators: identity",
    "semantic": "generators: semantic",
    "judged": "discriminators",
    "classifier_loss": "classifier",
}


def translation_sections(module: Any, run: Any) -> list[Section]:
    """Beside the sections of every adaptation."""
    module.network.eval()
    found = [
        both_ways_section(module, run),
        over_training_section(run),
        players_section(run),
        nearest_section(module, run),
    ]
    return [section for section in found if section is not None]


def both_ways_section(module: Any, run: Any) -> Section:
    network, splits, levels = module.network, run.datamodule.splits, run.datamodule.spec.levels
    source, target = (np.array(splits[f"{domain}_test"].images[:SHOWN]) for domain in ("source", "target"))
    there = translations(network, source, module.device)
    made = outputs(lambda batch, _: network.to_source(network.scaled(batch)), target, TARGET, module.device)
    back = outputs(lambda batch, _: network.to_target(batch), made, TARGET, module.device)
    grids = {
        "source x, G(x), F(G(x))": [source, *(as_uint8(there[name], levels) for name in ("made", "back"))],
        "target y, F(y), G(F(y))": [target, *(as_uint8(part, levels) for part in (made, back))],
    }
    path = run.folder / "figures" / "translations.png"
    save_grids(path, {title: np.concatenate(rows) for title, rows in grids.items()}, levels, columns=SHOWN)
    lines = ["Test images in the first row, their translations, and these translated back."]
    for name, told in {
        "label_kept": "The network trained on the target's labels finds the source's label in {:.1%} of them.",
        "semantic_agreement": "The labeller finds it in {:.1%}.",
        "cycle_l1": "|F(G(x)) − x| is {:.3f} in the mean, of pixels in [−1, 1].",
        "diversity": "|G(x, z₁) − G(x, z₂)| is {:.3f} in the mean: at 0 the noise would be ignored.",
    }.items():
        if (value := run.metrics.get(f"test/{name}")) is not None:
            lines.append(told.format(value))
    if (distance := run.metrics.get("test/kernel_distance_own_features")) is not None:
        ends = [run.metrics.get(f"test/kernel_distance_{name}", np.nan) for name in ("floor", "source")]
        lines.append(
            f"Kernel distance of translated from target images, in that network's features: {distance:.3f}; halves of "
            f"the target: {ends[0]:.3f}; untranslated: {ends[1]:.3f}."
        )
    return Section("Translations", " ".join(lines), "figures/translations.png")


def over_training_section(run: Any) -> Section | None:
    """The same validation digits' translations at several times."""
    kept = snapshots_of(run.folder)
    if not kept:
        return None
    original = np.array(run.datamodule.splits["source_val"].images[:FOLLOWED])
    grids = {"over training": np.concatenate([original, *(images for _, images in kept)])}
    save_grids(run.folder / "figures" / "over_training.png", grids, run.datamodule.spec.levels, columns=len(original))
    text = f"Validation digits, and their translations after {', '.join(f'{n:,}' for n, _ in kept)} batches."
    return Section("The same digits over training", text, "figures/over_training.png")


def players_section(run: Any) -> Section | None:
    """All players' losses in one picture."""
    path = run.folder / "metrics.csv"
    curves = read_curves(path) if path.exists() else {}
    shown = {title: curves[f"train/{name}"] for name, title in PLAYERS.items() if f"train/{name}" in curves}
    if not shown:
        return None
    save_players(run.folder / "figures" / "players.png", shown)
    text = (
        "Means between validations; the generators' parts with their weights. No player's loss says by itself how good "
        "the translations are; a discriminator that cannot tell has ¼, both together ½."
    )
    return Section("Players", text, "figures/players.png")


def save_players(path: Path, curves: dict[str, list[tuple[int, float]]]) -> None:
    figure, axis = plt.subplots(figsize=(9, 4.5))
    for title, points in curves.items():
        axis.plot(*zip(*points, strict=True), "o-", markersize=3, label=title)
    axis.set_yscale("log")
    axis.set_xlabel("batches")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def nearest_section(module: Any, run: Any) -> Section:
    """Translated images beside the target's training images nearest to them: has the generator learnt some by heart?"""
    splits, levels = run.datamodule.splits, run.datamodule.spec.levels
    made = translations(module.network, np.array(splits["source_test"].images[:5]), module.device)["made"]
    known = np.asarray(splits["target_train"].images)
    nearest, distances = [], []
    for image in made:
        apart = np.concatenate(
            [rms(as_range(part, levels) - image) for part in np.array_split(known, len(known) // 2000 + 1)]
        )
        nearest.append(known[apart.argmin()])
        distances.append(apart.min())
    grids = {"translated, and nearest of the target": np.concatenate([as_uint8(made, levels), np.array(nearest)])}
    save_grids(run.folder / "figures" / "nearest.png", grids, levels, columns=len(made))
    text = (
        "Five translated test images above the target's training images nearest to them, in root mean square "
        f"{', '.join(f'{d:.2f}' for d in distances)} apart, of pixels in [−1, 1]; 0 would be a copy."
    )
    return Section("Learnt by heart?", text, "figures/nearest.png")


def rms(differences: np.ndarray) -> np.ndarray:
    """Root mean square of each image's (N, …)."""
    return np.sqrt(np.square(differences.reshape(len(differences), -1)).mean(1))
