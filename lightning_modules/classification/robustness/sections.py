"""What the report of a run shows of its stage `attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.classification.analysis import confusions
from lightning_modules.classification.figures import save_matrix
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.robustness.adversarial import Overfitting
from lightning_modules.classification.robustness.defences import defence_text
from lightning_modules.classification.robustness.pictures import (
    save_adversaries,
    save_curve,
    save_distances,
    save_surfaces,
)
from lightning_modules.classification.robustness.sanity import checks, sanity_table
from lightning_modules.classification.robustness.stage import SHOWN, attack_figures, names_of
from lightning_modules.classification.robustness.suite import ONE_AFTER_ANOTHER, Settings, pgds
from reporting.figures import read_curves
from reporting.folder import read_json
from reporting.predictions import read_predictions
from reporting.report import Section

OVERFITTED = (
    "During training the accuracy under PGD-10 fell below a third of its best while the accuracy on training's own, "
    "single-step attack rose: the network learned to answer that attack, not to withstand (Wong et al. 2020)."
)
HOW = (
    "A figure of robustness means nothing without norm, ε, steps, restarts and the number of images: a network that "
    "was trained in the ordinary way falls to about 0 % on photographs under PGD at 8/255. Robust is an image that is "
    "right when clean and that none of the attacks breaks; in brackets Wilson's 95 % interval. PGD-k × n makes k steps "
    "from each of n starts. Rounded are the images as a file of whole levels holds them: where that takes a pixel past "
    "ε they leave the ball, and are no attack of this size."
)


def attack_sections(network: Classifier, run: Any) -> list[Section]:
    """The table, whether it can be believed, and what it looks like; nothing where nothing was attacked."""
    if not (run.folder / "attack.npz").exists():
        return []
    arrays, settings = read_predictions(run.folder, "attack.npz"), Settings(**read_json(run.folder / "attack.json"))
    figures, names = run.folder / "figures", run.datamodule.class_names
    how = run.config.task.module.get("adversarial", {})
    trained = f"against {how.method} with ε = {how.eps}" if how.get("method") else "in the ordinary way"
    aim = ", towards one wrong class only: no robust accuracy" if settings.targeted else ""
    said = f"{len(arrays['label']):,} test images, {settings.size}{aim}; the network was trained {trained}. {HOW}"
    table = "\n".join([accuracy_table(arrays, settings), *published_rows(run)])
    sections = [Section("Under attack", f"{said}\n\n{table}")]
    if overfitted(run.folder / "metrics.csv"):
        sections.append(Section("Catastrophic overfitting", OVERFITTED))
    if "defended_clean" in arrays:
        sections.append(Section("A defence in front of the network", defence_text(arrays, settings)))
    sections.append(Section("Can the attack be believed?", sanity_table(checks(arrays, settings.curve))))
    if "surfaces" in arrays:
        most = settings.eps if settings.norm == "Linf" else settings.eps / network.spec.dims**0.5
        save_surfaces(figures / "loss_surface.png", arrays["surfaces"], most)
        text = "Cross-entropy in nats; every pixel moved by up to ε along the gradient's sign and along random signs."
        sections.append(Section("Loss around four images", text, "figures/loss_surface.png"))
    if (strongest := strongest_of(arrays)) is not None:
        picture, text = figures / "adversarial.png", "What the network takes them for, before and after; rounded to "
        if show_adversaries(picture, strongest, arrays, settings, network, run):
            text += f"{network.spec.levels} levels, as a file holds them."
            sections.append(Section("Adversarial images", text, "figures/adversarial.png"))
        kept = arrays[f"logits_{strongest}"]
        save_matrix(figures / "confusion_attacked.png", confusions(arrays["label"], kept), names)
        text = f"What each class is taken for under {settings.described(strongest)}."
        sections.append(Section("Confusion under attack", text, "figures/confusion_attacked.png"))
    if len(settings.curve) > 1:
        most = 1.0 if settings.norm == "Linf" else network.spec.dims**0.5
        sizes = [min(most, settings.eps * multiple) for multiple in sorted(settings.curve)]
        shares = [float(arrays[f"right_at_{multiple:g}"].mean()) for multiple in sorted(settings.curve)]
        save_curve(figures / "accuracy_by_eps.png", sizes, shares, 1 / network.spec.classes, settings.norm)
        text = f"PGD-{settings.steps} from one start{' for each loss' if len(pgds(settings)) > 1 else ''}."
        sections.append(Section("Accuracy against ε", text, "figures/accuracy_by_eps.png"))
    if "logits_cw" in arrays:
        right = arrays["logits"].argmax(1) == arrays["label"]
        broken = arrays["tried_cw"] & right & (arrays["logits_cw"].argmax(1) != arrays["label"])
        if broken.any():
            save_distances(figures / "cw_distances.png", arrays["l2_cw"][broken])
            text = "Carlini and Wagner's attack looks for the nearest adversarial image, however far."
            sections.append(Section("How near", text, "figures/cw_distances.png"))
    return sections


def overfitted(curves: Path) -> bool:
    """Did a validation of the training find what `Overfitting` looks for?"""
    found = read_curves(curves) if curves.exists() else {}
    robust, trained = (dict(found.get(name, [])) for name in ("val/robust_accuracy", "train/accuracy"))
    seen = Overfitting(said=True)
    return any(seen.noticed(robust[step], trained[step]) for step in sorted(robust) if step in trained)


def strongest_of(arrays: dict[str, np.ndarray]) -> str | None:
    """The attack in the ball that leaves fewest right."""
    ours = [name for name in reversed(names_of(arrays)) if name != "cw"]  # of equal ones the later, longer one
    return min(ours, key=lambda name: (arrays[f"logits_{name}"].argmax(1) == arrays["label"]).mean(), default=None)


def accuracy_table(arrays: dict[str, np.ndarray], settings: Settings) -> str:
    """Markdown: accuracy under each attack, as floats and rounded to levels, and how far the images moved."""
    found, label = attack_figures(arrays), arrays["label"]

    def share(name: str) -> str:
        low, high = (found[f"attack/{name}/accuracy/{end}"] for end in ("low", "high"))
        return f"{found[f'attack/{name}/accuracy']:.1%} ({low:.1%} … {high:.1%})"

    right = arrays["logits"].argmax(1) == label
    lines = ["| attack | accuracy | rounded to levels | L∞, largest | L2, median |", "|---|---:|---:|---:|---:|"]
    lines.append(f"| none | {share('clean')} | {right.mean():.1%} | | |")
    for name in names_of(arrays):
        mine = arrays[f"tried_{name}"]
        far, l2 = arrays[f"linf_{name}"].max(), np.median(arrays[f"l2_{name}"][mine]) if mine.any() else 0.0
        if name == "cw":
            said = f"{found['attack/cw/success']:.1%} broken"
            lines.append(f"| {settings.described(name)}, on {mine.sum()} | {said} | | {far:.4f} |"
                         f" {found['attack/cw/distance']:.3f} |")  # fmt: skip
            continue
        outside = settings.norm == "Linf" and arrays[f"rounded_linf_{name}"].max() > settings.eps + 1e-6
        rounded = "leaves the ball" if outside else f"{(right & arrays[f'rounded_{name}']).mean():.1%}"
        rounded = rounded if mine.sum() >= right.sum() else ""  # of some images alone it is no accuracy
        on = f", on the {mine.sum()} still standing" if name in ONE_AFTER_ANOTHER else ""
        lines.append(f"| {settings.described(name)}{on} | {share(name)} | {rounded} | {far:.4f} | {l2:.3f} |")
    lines.append(f"| **worst case of each image** | **{share('worst')}** | | | |")
    return "\n".join(lines)


def published_rows(run: Any) -> list[str]:
    """Others' figures under attack on the same data, as lines of the table."""
    entries = [entry for entry in run.config.published if str(entry.get("metric", "")).startswith("attack/")]
    return [
        f"| {entry.name}, {name}: {entry.source} | {value:.1%} | | | |"
        for entry in entries
        if entry.data == run.config.choices.data
        for name, value in entry.figures.items()
    ]


def show_adversaries(
    path: Any, name: str, arrays: dict[str, np.ndarray], settings: Settings, network: Classifier, run: Any
) -> bool:
    """Draws images that the attack broke; False when it broke none of the first."""
    label, taken = arrays["label"][:SHOWN], arrays[f"logits_{name}"][:SHOWN].argmax(1)
    broken = np.flatnonzero((arrays["logits"][:SHOWN].argmax(1) == label) & (taken != label))
    if not len(broken):
        return False
    names, images = run.datamodule.class_names, np.array(run.datamodule.splits["test"].images[:SHOWN])
    moved = arrays[f"images_{name}"][:SHOWN]
    captions = [(names[label[number]], f"taken for {names[taken[number]]}") for number in broken]
    save_adversaries(path, images[broken], moved[broken], captions, network.spec.levels, settings.eps)
    return True
