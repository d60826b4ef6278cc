"""The task's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from datamodules.captions.words import decode_sentence
from lightning_modules.classification.figures import save_captioned
from lightning_modules.classification.report import SPLITS
from lightning_modules.classification.robustness.sanity import checks, sanity_table
from lightning_modules.classification.robustness.sections import accuracy_table, attack_sections, strongest_of
from lightning_modules.classification.robustness.stage import SHOWN
from lightning_modules.classification.robustness.suite import Settings
from lightning_modules.contrastive.attack import ZeroShot, folder_of, one_class, splits_of, view
from lightning_modules.contrastive.pictures import save_arrows, save_similarities
from lightning_modules.contrastive.towers import TwoTowers
from reporting.folder import read_json
from reporting.predictions import read_predictions
from reporting.report import Section

FLIPS = 6  # of the attacked images, those that went farthest
NAMED = {
    "embedding": "the name whose embedding, the mean of {:.0f} sentences about it, is nearest to the image's",
    "probabilities": "the name whose {:.0f} sentences are together the likeliest for the image",
}
DEFENDED = {
    "none": "no defence",
    "cross_entropy": "the image tower trained on adversarial images with a linear head begun by chance; names by text",
    "text_head": "the image tower trained on adversarial images with a linear head begun as the names; names by text",
    "tecoa": "TeCoA: the image tower trained on adversarial images against the names' own embeddings",
    "lora": "TeCoA's loss, but only a low-rank part of the image tower's matrices is trained",
    "prompt": "TeCoA's loss, but only a prompt added to every image is trained",
}


def report_sections(network: TwoTowers, device: torch.device, run: Any) -> list[Section]:
    """Names and retrieval, what is near what, and what an attack does to it."""
    sections = [Section("Names and retrieval", figures_table(network, run))]
    if (run.folder / "predictions.npz").exists():
        predictions = read_predictions(run.folder)
        save_similarities(run.folder / "figures" / "similarities.png", class_means(predictions), predictions["names"],
                          run.datamodule.class_names, run.datamodule.held_out)  # fmt: skip
        text = (
            "Cosine of the mean image of each class (rows) and each name (columns); names in red were never trained on."
        )
        sections.append(Section("Images beside names", text, "figures/similarities.png"))
    if not (run.folder / "attack.npz").exists():
        return sections
    sections += attack_sections(ZeroShot(network), view(run, "test"))
    if "unseen" in splits_of(run) and (folder_of(run.folder, "unseen") / "attack.npz").exists():
        sections.append(unseen_section(run))
    return [*sections, *moved_sections(network.eval(), device, run), *distractor_section(run)]


def figures_table(network: TwoTowers, run: Any) -> str:
    """Markdown: zero-shot accuracy beside chance, and retrieval, of each split."""
    metrics, names = run.metrics, network.captions.names
    lines = ["| images | zero-shot accuracy | chance | recall@1 | recall@5 |", "|---|---:|---:|---:|---:|"]
    for split, name in [*SPLITS.items(), ("unseen", "test, names never trained on")]:
        start, end = ("test", "_unseen") if split == "unseen" else (split, "")
        if f"{start}/accuracy{end}" not in metrics:
            continue
        cells = [
            f"{metrics[key]:.2%}" if (key := f"{start}/{figure}{end}") in metrics else ""
            for figure in ("accuracy", "recall_at_1", "recall_at_5")
        ]
        lines.append(f"| **{name}** | {cells[0]} | {1 / len(names):.2%} | {cells[1]} | {cells[2]} |")
    sentences = sum(map(len, network.sentences)) / len(names)
    held_out = len(run.datamodule.held_out)
    text = (
        f"Zero-shot: {NAMED[network.naming].format(sentences)}, among all {len(names)}, of which {held_out} were never "
        "trained on. Recall@k: whether one of the k nearest sentences, or images, of the split tells the same fact; "
        "mean of both directions. "
        f"Defence: {DEFENDED[network.defence]}."
    )
    note = f"\n\nThe data: {run.datamodule.note}." if run.datamodule.note else ""
    return "\n".join(lines) + f"\n\n{text}{note}"


def class_means(predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean image embedding of each class, of length 1 (classes, D); 0 of classes without an image."""
    parts = [(predictions[f"label{end}"], predictions[f"image{end}"]) for end in ("", "_unseen")
             if f"label{end}" in predictions]  # fmt: skip
    labels, images = (np.concatenate(values) for values in zip(*parts, strict=True))
    found = np.zeros_like(predictions["names"])
    np.add.at(found, labels[labels >= 0], images[labels >= 0])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def unseen_section(run: Any) -> Section:
    """The table under attack of images of names never trained on, and whether it can be believed."""
    folder = folder_of(run.folder, "unseen")
    arrays, settings = read_predictions(folder, "attack.npz"), Settings(**read_json(folder / "attack.json"))
    chance = 1 / arrays["logits"].shape[1]
    said = f"{len(arrays['label']):,} test images of names never trained on, {settings.size}; chance is {chance:.1%}."
    tables = [accuracy_table(arrays, settings), sanity_table(checks(arrays, settings.curve))]
    return Section("Under attack: unseen names", "\n\n".join([said, *tables]))


def moved_sections(network: TwoTowers, device: torch.device, run: Any) -> list[Section]:
    """Where the strongest attack carries images in the shared space, and the names it carries them to."""
    arrays = read_predictions(run.folder, "attack.npz")
    name = strongest_of(arrays)
    if name is None:
        return []
    labels = arrays["label"][:SHOWN]
    before = np.array(one_class(run.datamodule.splits["test"]).images[: len(labels)])
    after, taken = arrays[f"images_{name}"][: len(labels)], arrays[f"logits_{name}"][: len(labels)].argmax(1)
    tried = arrays[f"tried_{name}"][: len(labels)]
    with torch.no_grad():
        clean, moved = (network.image(torch.from_numpy(images).to(device)).cpu().numpy() for images in (before, after))
        names = network.names.cpu().numpy()
    flipped = np.flatnonzero(tried & (arrays["logits"][: len(labels)].argmax(1) == labels) & (taken != labels))
    save_arrows(run.folder / "figures" / "embeddings.png", names, clean[tried], moved[tried], labels[tried])
    text = (
        "The names (crosses) and images, clean (dots) and attacked (arrow heads), in the two directions in which the "
        "names vary most; a colour is a class."
    )
    sections = [Section("What the attack does to embeddings", text, "figures/embeddings.png")]
    if len(flipped):
        gain = ((moved - clean)[flipped] * (names[taken[flipped]] - names[labels[flipped]])).sum(1)
        worst = flipped[np.argsort(-gain, kind="stable")[:FLIPS]]
        said = {n: sentences(network, run.datamodule, n, taken[n]) for n in worst}
        captions = ["\n→ ".join(map(wrapped, said[n])) for n in worst]
        save_captioned(run.folder / "figures" / "flips.png", after[worst], captions, network.captions.levels, 3)
        lines = ["| image | its sentence | cosine of its name, clean → attacked | "
                 "the sentence taken for | cosine of that name |",
                 "|---:|---|---|---|---|"]  # fmt: skip
        for n in worst:
            own, other = (f"{clean[n] @ names[c]:+.2f} → {moved[n] @ names[c]:+.2f}" for c in (labels[n], taken[n]))
            lines.append(f"| {n} | {said[n][0]} | {own} | {said[n][1]} | {other} |")
        sections.append(Section("Worst flips", "\n".join(lines), "figures/flips.png"))
    return sections


def sentences(network: TwoTowers, data: Any, item: int, taken: int) -> tuple[str, str]:
    """What is said of the test image number `item` of one class, and the same of the class that it is taken for."""
    split, names = data.splits["test"], network.captions.names
    row = np.flatnonzero(np.asarray(split.labels) >= 0)[item]
    label = split.labels[row]
    own = decode_sentence(split.codes[row, 0], network.captions) if hasattr(split, "codes") else ""
    own = own or network.sentences[label][0]
    name, other = (names[number].replace("_", " ") for number in (label, taken))
    return own, own.replace(name, other)


def wrapped(sentence: str, width: int = 20) -> str:
    """A sentence in lines for a caption."""
    lines, line = [], ""
    for word in sentence.split(" "):
        if line and len(line) + len(word) >= width:
            lines, line = [*lines, line], ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def distractor_section(run: Any) -> list[Section]:
    """What is named of images with something else in a corner."""
    if not (run.folder / "distractor.npz").exists():
        return []
    arrays, names = read_predictions(run.folder, "distractor.npz"), run.datamodule.class_names
    label, pasted, taken = (arrays[name] for name in ("label", "pasted", "taken"))
    captions = [f"{names[a]}\npasted: {names[b]}\ntaken for {names[c]}".replace("_", " ")
                for a, b, c in zip(label, pasted, taken, strict=True)][: len(arrays["images"])]  # fmt: skip
    levels = run.datamodule.spec.levels
    save_captioned(run.folder / "figures" / "distractors.png", arrays["images"], captions, levels, 4)
    text = (
        f"Something of another class at half size in a corner, {len(label):,} test images: "
        f"{(taken == label).mean():.1%} are still named rightly, {(taken == pasted).mean():.1%} by what was pasted. "
        "No change within a ball, so not in the worst case."
    )
    return [Section("A distractor", text, "figures/distractors.png")]
