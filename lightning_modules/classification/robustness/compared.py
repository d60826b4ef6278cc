"""What a page that compares runs shows of those that were attacked: one against another, and each against all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.robustness.attention import attention_under_attack
from lightning_modules.classification.robustness.compared_pictures import save_curves, save_spectra, save_transfer
from lightning_modules.classification.robustness.spectra import radial_spectrum
from lightning_modules.classification.robustness.suite import ONE_AFTER_ANOTHER
from lightning_modules.classification.robustness.transfer import right_on, transfer_figures
from reporting.folder import read_json
from reporting.load import load_run
from reporting.predictions import read_predictions
from reporting.report import ComparedRun, Section
from reporting.statistics import half_interval, mean

SAME = ("norm", "eps", "steps", "step", "loss")  # of the attacks whose images are tried on one another
APART = "the interval (Student's t over the seeds) leaves 0 out"


class Group(NamedTuple):
    """Runs of one setting, which differ in their seeds alone."""

    name: str
    model: str
    trained: str
    runs: list[ComparedRun]

    def values(self, figure: str) -> list[float]:
        found = [float(run.metrics.get(figure, math.nan)) for run in self.runs]
        return [value for value in found if not math.isnan(value)]


def attack_sections(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
    """The table, the claim, curves, transfer, spectra, attention; nothing where fewer than two runs were attacked."""
    attacked = [run for run in runs if (run.folder / "attack.npz").is_file()]
    if len(attacked) < 2:
        return []
    groups = grouped(attacked)
    sections = [Section("Under attack", attack_table(groups)), *claim_sections(groups)]
    sections += curve_sections(groups, folder)
    kept = [run for run in attacked if (run.folder / "crafted.npz").is_file()]
    crafted = {run.name: read_predictions(run.folder, "crafted.npz") for run in kept}
    if len(crafted) > 1 and alike([run for run in attacked if run.name in crafted], crafted):
        sections += crafted_sections(groups, crafted, folder)
    return sections


def grouped(runs: Sequence[ComparedRun]) -> list[Group]:
    """Runs by what was trained and how, seeds aside; of the same name the later ones numbered."""
    found: dict[str, list[ComparedRun]] = {}
    for run in runs:
        keys = ("model", "optimizer", "scheduler", "budget", "average")
        setting = {key: OmegaConf.to_container(run.config)[key] for key in keys if key in run.config}
        setting |= {"task": OmegaConf.to_container(run.config.task.module), "epochs": run.config.trainer.max_epochs}
        found.setdefault(json.dumps(setting, sort_keys=True, default=str), []).append(run)
    groups, names = [], []
    for some in found.values():
        method = some[0].config.task.module.get("adversarial", {}).get("method")
        model, trained = str(some[0].config.choices.model), method or "ordinary"
        names.append(f"{model}, {trained}")
        again = names.count(names[-1])
        groups.append(Group(names[-1] + (f" {again}" if again > 1 else ""), model, trained, some))
    return groups


def strong_of(group: Group) -> list[float]:
    """What stands after the last of the attacks that follow one another."""
    name = next((name for name in reversed(ONE_AFTER_ANOTHER) if group.values(f"attack/{name}/accuracy")), None)
    return group.values(f"attack/{name}/accuracy") if name else []


def attack_table(groups: Sequence[Group]) -> str:
    """Markdown: accuracy under each attack, the median distance of Carlini and Wagner's, minutes, parameters."""
    heads = ("seeds", "clean", "FGSM", "PGD", "strong", "worst case", "CW, median L2", "minutes", "parameters")
    lines = [f"| network, training | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for group in groups:
        shares = [group.values(f"attack/{name}/accuracy") for name in ("clean", "fgsm", "pgd", "worst")]
        shares.insert(3, strong_of(group))
        cells = [share(values) for values in shares]
        cells.append(with_half(group.values("attack/cw/distance"), "{:.2f}"))
        cells.append(with_half([seconds / 60 for seconds in group.values("seconds/fit")][:1], "{:.1f}"))
        cells.append(with_half(group.values("parameters")[:1], "{:,.0f}"))
        lines.append(f"| {group.name} | {len(group.runs)} | {' | '.join(cells)} |")
    said = dict.fromkeys(described(run) for group in groups for run in group.runs)
    return "\n".join([f"{'; '.join(said)}. Means over the seeds, ± Student's 95 % interval.", "", *lines])


def described(run: ComparedRun) -> str:
    """What a run was attacked with, in words."""
    settings = read_json(run.folder / "attack.json")
    steps, restarts, norm, eps = (settings.get(key) for key in ("steps", "restarts", "norm", "eps"))
    text = f"{int(run.metrics.get('attack/images', 0)):,} test images, {norm} ≤ {eps:.4g}, PGD-{steps} × {restarts}"
    if "apgd_ce" in settings["attacks"]:
        steps, restarts = settings.get("apgd_steps", steps), settings.get("apgd_restarts", restarts)
        text += f", strong: APGD-CE-{steps} × {restarts}, APGD-T, Square"
    return text


def share(values: Sequence[float]) -> str:
    return with_half([100 * value for value in values], "{:.1f}") + (" %" if values else "")


def with_half(values: Sequence[float], form: str) -> str:
    """A mean with half its interval, `–` where there is none."""
    if not values:
        return "–"
    half = f" ± {form.format(half_interval(values))}" if len(values) > 1 else ""
    return form.format(mean(values)) + half


def claim_sections(groups: Sequence[Group]) -> list[Section]:
    """Is one network more robust than another trained in the same way, in the same time? Seed by seed."""
    lines = []
    for one, other in combinations(groups, 2):
        if one.trained != other.trained or one.model == other.model:
            continue
        for figure, said in {"clean": "clean", "worst": "in the worst case"}.items():
            pairs = paired(one, other, f"attack/{figure}/accuracy")
            if pairs:
                lines.append(
                    f"| {one.trained} | {said} | {one.model} − {other.model} | {difference(pairs, one, other)} |"
                )
    if not lines:
        return []
    text = (
        "Differences of accuracy between networks of the same training, seed by seed. A network is called better only "
        f"where {APART}; that no difference was found does not say that there is none."
    )
    head = ["| training | accuracy | networks | points | verdict |", "|---|---|---|---:|---|"]
    return [Section("Is one network more robust than the other?", "\n".join([text, "", *head, *lines]))]


def paired(one: Group, other: Group, figure: str) -> list[float]:
    """Points between the two at each seed that both have."""
    sides = [{int(run.config.seed): run.metrics[figure] for run in group.runs} for group in (one, other)]
    return [100 * (sides[0][seed] - sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]


def difference(points: Sequence[float], one: Group, other: Group) -> str:
    """Two cells: the mean with its interval, and what it says."""
    half = half_interval(points)
    if math.isnan(half):
        return f"{mean(points):+.1f} | one seed cannot tell"
    better = one.model if mean(points) > half else other.model if mean(points) < -half else None
    return f"{mean(points):+.1f} ± {half:.1f} | {f'**{better} is better**' if better else 'no difference found'}"


def curve_sections(groups: Sequence[Group], folder: Path) -> list[Section]:
    """Accuracy under PGD against ε, a line for each setting."""
    curves: dict[str, list[dict[float, float]]] = {}
    for group in groups:
        for run in group.runs:
            settings, arrays = read_json(run.folder / "attack.json"), read_predictions(run.folder, "attack.npz")
            most = 1.0 if settings["norm"] == "Linf" else math.inf
            points = {min(most, settings["eps"] * multiple): float(arrays[f"right_at_{multiple:g}"].mean())
                      for multiple in settings["curve"]}  # fmt: skip
            if len(points) > 1:
                clean = (arrays["logits"].argmax(1) == arrays["label"]).mean()
                curves.setdefault(group.name, []).append(dict(sorted(({0.0: float(clean)} | points).items())))
    if not curves:
        return []
    save_curves(folder / "accuracy_by_eps.png", curves)
    text = "PGD from one start; thin: each seed, thick: their mean. At 0 the accuracy without an attack."
    return [Section("Accuracy against ε", text, "accuracy_by_eps.png")]


def alike(runs: Sequence[ComparedRun], crafted: Mapping[str, Mapping[str, np.ndarray]]) -> bool:
    """Were all images crafted in the same way, of the same images?"""
    first, *others = [{key: read_json(run.folder / "attack.json").get(key) for key in SAME} for run in runs]
    images = [found["images"] for found in crafted.values()]
    return all(other == first for other in others) and all(np.array_equal(images[0], other) for other in images[1:])


def crafted_sections(
    groups: Sequence[Group], crafted: Mapping[str, Mapping[str, np.ndarray]], folder: Path
) -> list[Section]:
    """Transfer between the networks, what their perturbations are made of, where a transformer looks."""
    networks, levels = {}, None
    for group in groups:
        for run in group.runs:
            if run.name in crafted and (network := network_of(run)) is not None:
                networks[run.name], levels = network, network.spec.levels
    if len(networks) < 2:
        return [Section("Transfer", "The networks' checkpoints are not there any more: nothing was tried.")]
    members = {group.name: [run.name for run in group.runs if run.name in networks] for group in groups}
    members = {name: runs for name, runs in members.items() if runs}
    right = {(row, column): right_on(networks[column], crafted[row]) for row in networks for column in networks}
    clean = {name: right_on(network, crafted[name], moved=False) for name, network in networks.items()}
    table, shares = transfer_figures(members, right, clean)
    save_transfer(folder / "transfer.png", shares, list(members))
    sections = [Section("Transfer", table, "transfer.png")]
    spectra = {
        name: [radial_spectrum(crafted[run]["moved"] - crafted[run]["images"] / (levels - 1)) for run in runs]
        for name, runs in members.items()
    }
    save_spectra(folder / "spectra.png", spectra)
    text = (
        "Mean power of the perturbations at each spatial frequency, in multiples of white noise of the same energy: "
        "to the left slow changes over the image, to the right the finest grain."
    )
    sections.append(Section("What the perturbations are made of", text, "spectra.png"))
    classes = [str(name) for name in groups[0].runs[0].predictions["class_names"]]
    for number, (name, runs) in enumerate(members.items()):
        shown = f"attention_under_attack_{number}.png"
        text = attention_under_attack(networks[runs[0]], crafted[runs[0]], classes, folder / shown)
        if text:
            sections.append(Section(f"Where it looks before and after: {name}", text, shown))
    return sections


def network_of(run: ComparedRun) -> Classifier | None:
    """A run's network; None where its checkpoint is gone."""
    try:
        return load_run(run.folder).network
    except UsageError:
        return None
