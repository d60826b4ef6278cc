"""The stage `attack`: test images attacked batch by batch, whole batches kept, then judged together."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules import attacks
from lightning_modules.attacks.crafting import Forward
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.robustness.defences import defended_figures, defended_rows, require_fitting
from lightning_modules.classification.robustness.progress import EVERY, Progress
from lightning_modules.classification.robustness.soundness import ALTERED, SURFACES, confidences, still_right, surfaces
from lightning_modules.classification.robustness.suite import (
    ONE_AFTER_ANOTHER,
    TRANSFER,
    Settings,
    all_steps,
    attack_named,
    passes_at_most,
    pgds,
)
from lightning_modules.classification.robustness.transfer import surrogate
from reporting.folder import CONF, read_json, read_metrics
from reporting.predictions import read_predictions, write_predictions
from reporting.report import write_text

log = logging.getLogger(__name__)
SHOWN = 64  # images whose adversarial forms are kept
CRAFTED = 512  # images whose PGD forms are kept in full, for trying them on other networks
PARTS = "attack_parts"  # folder of the batches that are done
Arrays = dict[str, np.ndarray]


def run_attacks(network: Classifier, device: torch.device, run: Any) -> None:
    """Attacks the first test images; leaves `attack.npz`, `crafted.npz` and the figures `attack/…` in `run.metrics`.

    Interrupted, it goes on from the whole batches in the run's folder, where the settings are the same.

    Raises:
        UsageError: a setting is impossible, or more images were asked for than there are.
    """
    settings, count = asked_for(run)
    images, labels = run.datamodule.splits["test"]
    progress = Progress()
    forward = progress.watched(attacks.forward_of(network.eval(), network.spec.levels))
    of, other = fingerprint(network, images[:count], labels[:count]), None
    if settings.transfer is not None:
        foreign = surrogate(settings.transfer, network.spec).to(device)
        of += fingerprint(foreign, images[:0], labels[:0])
        other = progress.watched(attacks.forward_of(foreign, foreign.spec.levels))
    parts = begun(run.folder / PARTS, settings, of)
    started = said = time.perf_counter()
    first = len(parts)
    starts = list(range(0, count, settings.batch_size))
    for number, start in enumerate(starts):
        if number in parts:
            continue
        rows = slice(start, min(start + settings.batch_size, count))
        batch, classes = on_device(images[rows], labels[rows], network.spec.levels, device)
        items = list(range(start, rows.stop))
        where = f"images {start + 1} to {rows.stop} of {count}"
        parts[number] = attacked(forward, batch, classes, items, settings, network.spec.levels, other, progress, where)
        write_predictions(run.folder / PARTS, parts[number], f"{number:05d}.npz")
        now = time.perf_counter()
        if now - said > EVERY or number + 1 == len(starts):
            said, speed = now, (number + 1 - first) * settings.batch_size / (now - started)
            log.info("attack: %d of %d images, %.1f a second", rows.stop, count, min(speed, count / (now - started)))
    joined = {name: np.concatenate([parts[number][name] for number in sorted(parts)]) for name in parts[0]}
    moved = joined.pop("crafted")
    kept = {"moved": moved, "images": np.array(images[: len(moved)]), "label": joined["label"][: len(moved)]}
    write_predictions(run.folder, kept, "crafted.npz")
    progress.begins("can it be believed")
    few = min(count, max(SURFACES, ALTERED))
    batch, classes = on_device(images[:few], labels[:few], network.spec.levels, device)
    joined["surfaces"] = surfaces(forward, batch[:SURFACES], classes[:SURFACES], settings)
    joined["confidence"] = confidences(forward, batch[:ALTERED], settings)
    write_predictions(run.folder, joined, "attack.npz")
    write_text(run.folder / "attack.json", json.dumps(settings.plain, indent=1) + "\n")
    for path in sorted((run.folder / PARTS).iterdir()):
        path.unlink()
    (run.folder / PARTS).rmdir()
    forget(run.folder)
    run.metrics |= attack_figures(joined)
    told = {name: value for name, value in run.metrics.items() if name.startswith("attack/") and "accuracy" in name}
    log.info("attack: %s", "  ".join(f"{name} {value:.4f}" for name, value in told.items() if name.count("/") == 2))
    log.info("attack: %s", run.folder / "attack.npz")


def on_device(images: np.ndarray, labels: np.ndarray, levels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stored images as floats in [0, 1], and their labels."""
    batch = torch.from_numpy(np.array(images)).to(device).float() / (levels - 1)
    return batch, torch.from_numpy(np.array(labels)).long().to(device)


def asked_for(run: Any) -> tuple[Settings, int]:
    """The settings, and how many images will be attacked; `run_attacks` says what it raises.

    Where the number is the choice's own it is an upper limit; typed, it must be there.
    """
    settings, there = Settings.of(run.config.attack), len(run.datamodule.splits["test"].images)
    own = CONF / "attack" / f"{run.config.choices.attack}.yaml"
    usual = own.is_file() and OmegaConf.load(own)["items"] == settings.items
    if settings.items > there and not usual:
        raise UsageError(
            f"attack.items is {settings.items}, but the test split has {there} images: choose {there} or fewer."
        )
    if (defence := settings.defence()) is not None:
        require_fitting(defence, run.datamodule.spec)
    if settings.transfer is not None:
        surrogate(settings.transfer, run.datamodule.spec)
    return settings, min(settings.items, there)


def forget(folder: Path) -> None:
    """Takes the figures of an earlier attack, which may have been another, out of a run's metrics.json."""
    if found := read_metrics(folder):
        kept = {name: value for name, value in found.items() if not name.startswith("attack/")}
        write_text(folder / "metrics.json", json.dumps(kept, indent=2, sort_keys=True) + "\n")


def fingerprint(network: Classifier, images: np.ndarray, labels: np.ndarray) -> str:
    """Of weights and images: batches of others must not be gone on with."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for values in (images, labels):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def begun(folder: Path, settings: Settings, of: str) -> dict[int, Arrays]:
    """The batches that an earlier start with the same settings finished; those of another are taken away."""
    stamp = settings.plain | {"of": of}
    if read_json(folder / "settings.json") != stamp:
        for path in sorted(folder.glob("*")):
            path.unlink()
        write_text(folder / "settings.json", json.dumps(stamp) + "\n")
    files = [path for path in sorted(folder.glob("*.npz")) if not path.name.startswith(".")]
    found = {int(path.stem): read_predictions(folder, path.name) for path in files}
    if found:
        log.info("attack: goes on after %d whole batches", len(found))
    return found


def attacked(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    items: list[int],
    settings: Settings,
    levels: int,
    other: Forward | None = None,
    progress: Progress | None = None,
    where: str = "",
) -> Arrays:
    """One batch under every attack: labels, clean logits, and of each attack success, distances, loss and pictures.

    Args:
        other: the network of another run, on which images are crafted too.
        progress: what tells how far each attack is on the images `where`; None: nothing does.
    """
    progress = progress or Progress(math.inf)
    clean = attacks.judged(forward, images)
    rows: Arrays = {"item": np.array(items), "label": array(labels), "logits": array(clean)}
    right = clean.argmax(1) == labels
    standing = right.clone()
    rows["zero_gradient"] = array(attacks.zero_gradients(forward, images, labels))
    adversarial = adversaries(forward, images, labels, items, settings, right, other, progress, where)
    for name, moved, chosen in adversarial:
        logits = attacks.judged(forward, moved)
        rows |= {f"logits_{name}": array(logits), **distances(moved - images, name)}
        rows[f"tried_{name}"] = array(chosen)
        rounded = (moved * (levels - 1)).round() / (levels - 1)
        rows[f"rounded_{name}"] = array(attacks.judged(forward, rounded).argmax(1) == labels)
        rows[f"rounded_linf_{name}"] = array((rounded - images).flatten(1).abs().amax(1))
        shown = np.full((len(items), *images.shape[1:]), 0, np.uint8)
        kept = np.array(items) < SHOWN
        shown[kept] = array((rounded * (levels - 1)).round().byte())[kept]
        rows[f"images_{name}"] = shown
        if name != "cw":  # which keeps to no ball
            standing &= logits.argmax(1) == labels
    progress.begins(f"has it converged, {where}")
    rows["right_longer"] = array(still_right(forward, images, labels, items, standing, settings))
    full = all_steps(forward, images, labels, items, settings)
    rows["crafted"] = array(full)[np.array(items) < CRAFTED]
    if settings.defence() is not None:
        progress.begins(f"{settings.preprocessing}, {where}")
        rows |= defended_rows(forward, images, labels, items, full, settings)
    whole = 1.0 if settings.norm == "Linf" else images[0].numel() ** 0.5  # from one end of the range to the other
    for multiple in settings.curve:
        progress.begins(f"PGD at {multiple:g} ε, {where}")
        size = min(whole, settings.eps * multiple)
        rows[f"right_at_{multiple:g}"] = array(right_at(forward, images, labels, items, right, settings, size))
    progress.begins(f"PGD in the whole range, {where}")
    rows["right_at_all"] = array(right_at(forward, images, labels, items, right, settings, whole))
    return rows


def adversaries(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    items: list[int],
    settings: Settings,
    right: Tensor,
    other: Forward | None,
    progress: Progress,
    where: str,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each attack's images, and which it was given (N,): of those that follow one another the ones still standing, of
    Carlini and Wagner's those right when clean, as what is wrong already has no distance."""
    classes, standing = attacks.judged(forward, images[:1]).shape[1], right.clone()
    for name in settings.attacks:
        attack = attack_named(name, settings, classes)
        moved = images.clone()
        chosen = standing if name in ONE_AFTER_ANOTHER else torch.ones_like(standing)
        if name == "cw":
            chosen = right & torch.tensor([item < settings.cw_items for item in items], device=images.device)
        if chosen.any():
            numbers = torch.tensor(items)[chosen.cpu()].tolist()
            progress.begins(f"{name}, {where}", len(numbers) * passes_at_most(name, settings, classes))
            moved[chosen] = attack(forward, images[chosen], labels[chosen], numbers)
        if name in ONE_AFTER_ANOTHER:
            standing = standing & (attacks.judged(forward, moved).argmax(1) == labels)
        yield name, moved, chosen
    if other is not None:
        progress.begins(f"{TRANSFER}, {where}")
        yield TRANSFER, all_steps(other, images, labels, items, settings), torch.ones_like(standing)


def right_at(
    forward: Forward, images: Tensor, labels: Tensor, items: list[int], right: Tensor, settings: Settings, eps: float
) -> Tensor:
    """Which of those right when clean (N,) withstand PGD in a ball of this radius, with each loss that is tried."""
    how, standing = replace(settings, eps=eps, step=None, restarts=1, targeted=False), right.clone()
    for name in pgds(settings) or ["pgd"]:
        if standing.any():
            numbers = torch.tensor(items)[standing.cpu()].tolist()
            moved = attack_named(name, how, 0)(forward, images[standing], labels[standing], numbers)
            standing[standing.clone()] = ~attacks.succeeded(forward, moved, labels[standing])
    return standing


def distances(moved: Tensor, name: str) -> Arrays:
    flat = moved.flatten(1)
    return {f"linf_{name}": array(flat.abs().amax(1)), f"l2_{name}": array(flat.norm(dim=1))}


def array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def names_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The attacks that a file holds, in their order."""
    return [name.removeprefix("logits_") for name in arrays if name.startswith("logits_")]


def attack_figures(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`attack/clean/accuracy`, of each attack and of the worst case over them, with Wilson's 95 % intervals.

    An image that is wrong when clean counts as wrong. Of attacks that follow one another, each on the images that the
    former left standing, the accuracy is what stands after it. Carlini and Wagner's attack keeps to no ball: its
    figures are its success and the median of its distances, and it is not in the worst case.
    """
    label = arrays["label"]
    right = {"clean": arrays["logits"].argmax(1) == label}
    standing = right["clean"]  # of those attacks that follow one another
    for name in names_of(arrays):
        if name != "cw":
            before = standing if name in ONE_AFTER_ANOTHER else right["clean"]
            right[name] = before & (arrays[f"logits_{name}"].argmax(1) == label)
            standing = right[name] if name in ONE_AFTER_ANOTHER else standing
    right["worst"] = np.logical_and.reduce(list(right.values()))
    found = {"attack/images": len(label)}
    for name, kept in right.items():
        low, high = attacks.wilson(int(kept.sum()), len(kept))
        found |= {f"attack/{name}/accuracy": float(kept.mean()), f"attack/{name}/accuracy/low": low}
        found |= {f"attack/{name}/accuracy/high": high}
    if "logits_cw" in arrays:
        mine = arrays["tried_cw"] & right["clean"]
        broken = mine & (arrays["logits_cw"].argmax(1) != label)
        found["attack/cw/success"] = float(broken.sum() / max(1, mine.sum()))
        found["attack/cw/distance"] = float(np.median(arrays["l2_cw"][broken])) if broken.any() else float("nan")
    return found | defended_figures(arrays)
