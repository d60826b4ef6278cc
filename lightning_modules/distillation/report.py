"""The task's part of a run's report."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.classification.analysis import confusions
from lightning_modules.classification.figures import save_matrix
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.report import worst_confusions
from lightning_modules.distillation.comparison import LEARNED_FROM
from lightning_modules.distillation.figures import save_classes, save_game, save_neighbours
from lightning_modules.distillation.losses import class_entropy
from lightning_modules.distillation.teacher import Teacher
from reporting.predictions import read_predictions
from reporting.report import Section

NEIGHBOURS = 250  # real and made-up images each of the t-SNE
FAKES = "figures/fakes.png", "figures/fakes_over_time.png"  # the stage sample's


def report_sections(student: Classifier, teacher: Teacher, made: Tensor | None, run: Any) -> list[Section]:
    """Teacher, student and published figures; made-up images; the game's curves; classes; confusions; neighbours.

    Args:
        student, teacher: on one device.
        made: made-up normalised images (N, C, H, W); None where the student learned from real ones.
        run: with its datamodule.
    """
    figures, names = run.folder / "figures", run.datamodule.class_names
    sections = [Section("Accuracy", accuracy_text(run))]
    for title, text, path in zip(
        ("Images that the student learned from", "The same noise through the training"),
        (
            "With the class that the teacher takes each for, and its probability. They are normalised to mean 0 and "
            "variance 1 and have no range: what is shown is cut to the data's.",
            "From the beginning to the end, a fifth of the training apart.",
        ),
        FAKES,
        strict=True,
    ):
        if (run.folder / path).exists():
            sections.append(Section(title, text, path))
    curves = run.folder / "metrics.csv"
    if curves.exists() and save_game(figures / "game.png", curves):
        text = (
            "The student lowers the discrepancy, the generator raises it. The student's accuracy on real images is "
            "not known while it learns"
            + ("; it is drawn because of task.module.oracle=true." if run.config.task.module.oracle else ".")
        )
        sections.append(Section("The game", text, "figures/game.png"))
    if made is not None:
        sections.append(classes_section(teacher, made, names, run))
    if (run.folder / "predictions.npz").exists():
        predictions = read_predictions(run.folder)
        counts = confusions(predictions["label"], predictions["probabilities"])
        save_matrix(figures / "confusion.png", counts, names)
        sections.append(Section("Confusions of the student", worst_confusions(counts, names), "figures/confusion.png"))
        sections.append(Section("Each class", class_table(predictions, names)))
    if made is not None and len(made) > 5:
        sections.append(neighbours_section(teacher, made, names, run))
    return sections


def accuracy_text(run: Any) -> str:
    """Markdown: ours, others' figures of the same data, and what a reader must know."""
    metrics, module = run.metrics, run.config.task.module
    lines = ["| network | test accuracy | of the teacher's | |", "|---|---:|---:|---|"]
    if "test/accuracy" in metrics:
        ratio = metrics["test/accuracy_ratio"]
        lines += [
            f"| teacher | {metrics['test/teacher_accuracy']:.2%} | | this run |",
            f"| **student**, last step | {metrics['test/accuracy']:.2%} | {ratio:.4f} | this run |",
        ]
        if "test/accuracy_oracle" in metrics:
            lines.append(
                f"| student, best by labelled validation images | {metrics['test/accuracy_oracle']:.2%} | | this run; "
                "not attainable without labels |"
            )
    for entry in run.config.published:
        if entry.data != run.config.choices.data:
            continue
        if "metric" in entry:
            lines += [f"| {name} | {value:.2%} | | {entry.source} |" for name, value in entry.figures.items()]
        else:
            for key, name in (("teacher_accuracy", "teacher"), ("accuracy", "student")):
                if key in entry.figures:
                    shown = entry.get("name", name) if key == "accuracy" else name
                    lines.append(f"| {shown} | {entry.figures[key]:.2%} | | {entry.source} |")
    text = "\n".join(lines) + f"\n\nThe student learned from {LEARNED_FROM[module.inputs]}."
    if "parameters_ratio" in metrics:
        text += (
            f" It has {metrics['parameters_ratio']:.1%} of the teacher's parameters and takes "
            f"{metrics['flop_ratio']:.1%} of its operations."
        )
    if "test/agreement" in metrics:
        text += (
            f" On the test images it names the teacher's class in {metrics['test/agreement']:.1%}; the mean difference "
            f"of a logit is {metrics['test/logit_l1']:.2f}."
        )
    return text + (f"\n\nThe data: {run.datamodule.note}." if run.datamodule.note else "")


def classes_section(teacher: Teacher, made: Tensor, names: list[str], run: Any) -> Section:
    with torch.no_grad():
        classes = teacher(made).argmax(1).cpu()
    save_classes(run.folder / "figures" / "classes.png", np.bincount(classes, minlength=len(names)), names)
    text = (
        f"{len(made)} made-up images; their entropy is {class_entropy(classes, len(names)):.2f} nats of "
        f"{np.log(len(names)):.2f} in balance. A class that hardly occurs is learned from few images."
    )
    return Section("What the teacher takes them for", text, "figures/classes.png")


def class_table(predictions: Any, names: list[str]) -> str:
    """Each class's accuracy of teacher and student."""
    label = predictions["label"]
    right = {who: predictions[key].argmax(1) == label for who, key in
             (("student", "probabilities"), ("teacher", "teacher_probabilities"))}  # fmt: skip
    lines = ["| class | test images | teacher | student | ratio |", "|---|---:|---:|---:|---:|"]
    for number, name in enumerate(names):
        own = label == number
        if own.any():
            student, teacher = right["student"][own].mean(), right["teacher"][own].mean()
            ratio = f"{student / teacher:.3f}" if teacher else ""
            lines.append(f"| {name} | {own.sum():,} | {teacher:.1%} | {student:.1%} | {ratio} |")
    return "\n".join(lines)


def neighbours_section(teacher: Teacher, made: Tensor, names: list[str], run: Any) -> Section:
    """t-SNE of the teacher's last features of real test images and of made-up ones."""
    from sklearn.manifold import TSNE

    images = torch.from_numpy(np.array(run.datamodule.splits["test"].images[:NEIGHBOURS])).to(made.device)
    parts = [features_of(teacher.network, images), features_of(teacher.network, made[:NEIGHBOURS], normalised=True)]
    features = np.concatenate([features for features, _ in parts])
    classes = np.concatenate([found for _, found in parts])
    perplexity = min(30.0, (len(features) - 1) / 3)
    places = TSNE(init="pca", random_state=0, perplexity=perplexity, n_jobs=1).fit_transform(features)
    real = len(images)
    kinds = {"real test images": slice(0, real), "made-up images": slice(real, len(features))}
    save_neighbours(run.folder / "figures" / "neighbours.png", places, classes, kinds, names)
    text = "t-SNE of what the teacher's last layer sees: where made-up images lie among real ones."
    return Section("Made-up beside real", text, "figures/neighbours.png")


@torch.no_grad()
def features_of(network: Classifier, images: Tensor, normalised: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The input of the last linear layer (N, features), and the class that is named (N,)."""
    seen = []
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    handle = last.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    logits = network.eval().forward_normalised(images) if normalised else network.eval()(images)
    handle.remove()
    return seen[0].float().cpu().numpy(), logits.argmax(1).cpu().numpy()
