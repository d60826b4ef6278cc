"""The task's part of a run's report."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score

from lightning_modules.adaptation.criteria import CRITERIA
from lightning_modules.adaptation.figures import embedded, save_confusions, save_embeddings
from lightning_modules.adaptation.network import SOURCE, TARGET, DigitNetwork
from lightning_modules.adaptation.predicting import outputs
from lightning_modules.classification.analysis import confident_mistakes, confusions
from lightning_modules.classification.figures import save_captioned
from lightning_modules.classification.report import worst_confusions
from lightning_modules.grad_cam import grad_cam, save_cams
from reporting.figures import save_grids
from reporting.intervals import bootstrap
from reporting.predictions import read_predictions
from reporting.report import Section

MISTAKES = 24
LOOKED_AT = 12  # test images under Grad-CAM
BEFORE = {"source_only": "source only", "adabn": "source only + target statistics (AdaBN)"}
PEEKED = "not attainable without labels"


def report_sections(network: DigitNetwork, run: Any, embedded_items: int) -> list[Section]:
    """The ladder from source-only to target-trained, and all that test images and features show.

    Args:
        embedded_items: test images of each domain in the picture of the features; 0: no picture.
    """
    predictions = read_predictions(run.folder) if (run.folder / "predictions.npz").exists() else {}
    bounds = read_predictions(run.folder, "bounds.npz") if (run.folder / "bounds.npz").exists() else {}
    if bounds and not np.array_equal(bounds["label"], predictions.get("label", bounds["label"])):
        bounds = {}  # of another, cut-short test
    sections = [ladder_section(predictions, run), domains_section(run)]
    if predictions:
        sections += [confusion_section(predictions, bounds, run), classes_section(predictions, bounds, run)]
        sections += mistakes_sections(predictions, run)
    return [
        *sections,
        *([embeddings_section(network, bounds, run, embedded_items)] if embedded_items else []),
        cam_section(network, run),
        telling_section(run),
    ]


# The ladder


def ladder_section(predictions: Any, run: Any) -> Section:
    """Every way's accuracy on the target's test images, ours and others'."""
    metrics, name = run.metrics, run.config.choices.model
    rows = [("source only", metrics.get("test/source_only_accuracy"), "no target image seen")]
    rows.append((BEFORE["adabn"], metrics.get("test/adabn_accuracy"), "its statistics from target images"))
    rows.append((f"**{name}**", metrics.get("test/accuracy"), f"this run{interval(predictions)}"))
    rows.append((f"{name}, its best epoch by target labels", metrics.get("test/accuracy_oracle"), PEEKED))
    rows.append(("target trained", metrics.get("test/target_trained_accuracy"), f"on target labels: {PEEKED}"))
    lines = ["| method | accuracy on the target | |", "|---|---:|---|"]
    lines += [f"| {method} | {value:.2%} | {told} |" for method, value, told in rows if value is not None]
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            names = entry.figures.items() if "metric" in entry else [("", entry.figures.get("accuracy"))]
            lines += [
                f"| {' '.join(filter(None, [entry.get('name', ''), row]))} | {value:.2%} | {entry.source} |"
                for row, value in names
                if value is not None
            ]
    told = [
        "Of the same network, the same number of steps, the last step of each.",
        f"The data: {run.datamodule.note}.",
    ]
    if "test/gap_closed" in metrics:
        closed = f"{share:.1%}" if (share := metrics["test/gap_closed"]) > 0 else "None"
        told.insert(0, f"{closed} of the gap between source only and target trained is closed.")
    if "test/accuracy_source" in metrics:
        told.insert(0, f"On the source's test images this run has {metrics['test/accuracy_source']:.2%}.")
    return Section("Accuracy on the target", "\n".join([*lines, "", " ".join(told)]))


def interval(predictions: Any) -> str:
    if not predictions:
        return ""
    found = bootstrap(np.mean, predictions["probabilities"].argmax(1) == predictions["label"])
    return f"; 95 % interval of the test images {found.low:.2%} … {found.high:.2%}"


def domains_section(run: Any) -> Section:
    """Images of both domains."""
    source, target = run.datamodule.domains
    grids = {
        f"{source}: source": np.array(run.datamodule.splits["source_train"].images[:36]),
        f"{target}: target": np.array(run.datamodule.splits["target_train"].images[:36]),
    }
    save_grids(run.folder / "figures" / "domains.png", grids, run.datamodule.spec.levels)
    return Section(
        "The two domains", "Training images; the target's are seen without their labels.", "figures/domains.png"
    )


# What the test images show


def confusion_section(predictions: Any, bounds: Any, run: Any) -> Section:
    """Confusions of target test images, before and after adaptation."""
    names = run.datamodule.class_names
    counts = {"source only": confusions(bounds["label"], bounds["source_only"])} if bounds else {}
    counts[run.config.choices.model] = own = confusions(predictions["label"], predictions["probabilities"])
    save_confusions(run.folder / "figures" / "confusions.png", counts, names)
    return Section("Confusions on the target", worst_confusions(own, names), "figures/confusions.png")


def classes_section(predictions: Any, bounds: Any, run: Any) -> Section:
    """Accuracy on each class of the target's test images."""
    columns = {"source only": "source_only", "target trained": "target_trained"}
    found = {title: bounds[name] for title, name in columns.items() if name in bounds}
    found[run.config.choices.model] = predictions["probabilities"]
    label = predictions["label"]
    lines = [f"| class | test images | {' | '.join(found)} |", "|---|---:|" + "---:|" * len(found)]
    for number, name in enumerate(run.datamodule.class_names):
        if (own := label == number).any():
            cells = [f"{accuracy_score(label[own], p.argmax(1)[own]):.1%}" for p in found.values()]
            lines.append(f"| {name} | {own.sum():,} | {' | '.join(cells)} |")
    return Section("Classes", "\n".join(lines))


def mistakes_sections(predictions: Any, run: Any) -> list[Section]:
    label, p = predictions["label"], predictions["probabilities"]
    if not len(worst := confident_mistakes(label, p, MISTAKES)):
        return []
    names = run.datamodule.class_names
    captions = [f"{names[label[row]]}, taken for\n{names[p[row].argmax()]} ({p[row].max():.0%})" for row in worst]
    images = np.array(run.datamodule.splits["target_test"].images[worst])
    save_captioned(run.folder / "figures" / "mistakes.png", images, captions, run.datamodule.spec.levels)
    text = "The target's test images that are taken for another class with the highest probability."
    return [Section("Most confident mistakes", text, "figures/mistakes.png")]


# Inside the network


def embeddings_section(network: DigitNetwork, bounds: Any, run: Any, items: int) -> Section:
    """t-SNE of the features of test images of both domains, before and after."""
    splits, device, network = run.datamodule.splits, run.module.device, network.eval()
    after = [
        outputs(network.features, splits[f"{name}_test"].images[:items], domain, device)
        for name, domain in (("source", SOURCE), ("target", TARGET))
    ]
    stages = {"source only": [bounds[f"features_{name}"][:items] for name in ("source", "target")]} if bounds else {}
    stages[run.config.choices.model] = after
    labels = np.concatenate([splits[f"{name}_test"].labels[:items] for name in ("source", "target")])
    is_target = np.repeat([False, True], [len(part) for part in after])
    placed = {name: embedded(np.concatenate(parts)) for name, parts in stages.items()}
    save_embeddings(run.folder / "figures" / "embeddings.png", placed, is_target, labels, run.datamodule.class_names)
    text = (
        f"t-SNE of what the heads are given, of {len(after[0])} source and {len(after[1])} target test images. "
        "Adapted, the domains lie on each other, and classes apart."
    )
    if (distance := run.metrics.get("test/proxy_a_distance")) is not None:
        text += f" Proxy A-distance of the domains: {distance:.2f} (2: wholly apart; 0: alike)."
    return Section("Features", text, "figures/embeddings.png")


def cam_section(network: DigitNetwork, run: Any) -> Section:
    """Grad-CAM of the first target test images, for the class that each is taken for."""
    images, labels = (np.array(part[:LOOKED_AT]) for part in run.datamodule.splits["target_test"])
    given = torch.from_numpy(images).to(run.module.device)
    with torch.no_grad():
        taken = network.eval()(given).argmax(1)
    cams, names = grad_cam(network, given, taken), run.datamodule.class_names
    captions = [
        f"{names[label]}, taken for {names[other]}" for label, other in zip(labels, taken.tolist(), strict=True)
    ]
    save_cams(run.folder / "figures" / "grad_cam.png", images, cams, captions, run.datamodule.spec.levels)
    text = "Grad-CAM on the second convolution's map: where the class that an image is taken for is found."
    return Section("Where it looks", text, "figures/grad_cam.png")


def telling_section(run: Any) -> Section:
    """What can be said without target labels, at the end of training."""
    lines = ["| at the end of training, without target labels | value | better |", "|---|---:|---|"]
    for name, higher in CRITERIA.items():
        if (value := run.metrics.get(f"val/{name}")) is not None:
            shown = "source validation accuracy" if name == "accuracy_source" else name.replace("_", " ")
            lines.append(f"| {shown} | {value:.4f} | {'higher' if higher else 'lower'} |")
    text = "None of these chose anything in this run: whether they could is what sweep=adaptation_selection asks."
    return Section("Judged without labels", "\n".join([*lines, "", text]))
