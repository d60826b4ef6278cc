"""What a validation and the test come to: on made-up images, and on real ones."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.base import Measured
from lightning_modules.distillation.images import GENERATED
from lightning_modules.distillation.losses import class_entropy, discrepancy

EXAMINED = 512  # images of a validation


def on_made_up_images(module: Any) -> Measured:
    """A validation, which sees no real image; the student's accuracy on labelled ones where the oracle is asked."""
    x, network = examined(module), module.network
    teacher, student = module.teacher(x).float(), network.student.forward_normalised(x).float()
    classes = teacher.argmax(1)
    gap = discrepancy(teacher, student)
    values = {
        "discrepancy": gap[None],
        "agreement": classes == student.argmax(1),
        "class_entropy": class_entropy(classes, network.spec.classes)[None],
    }
    if module.inputs in GENERATED:
        made = module.generator.eval()(module.noise(EXAMINED, seeded()))
        other = discrepancy(module.teacher(made), network.student.forward_normalised(made))
        values["discrepancy_eval"] = other[None]
    if module.oracle:
        values["accuracy_oracle"] = right_of_validation(module)
    return Measured(gap, values)


def examined(module: Any) -> Tensor:
    """Images of a validation, the same noise at each; a generator's in train mode, as the student gets them."""
    if module.inputs not in GENERATED:
        return module.images(EXAMINED, seeded())[0]
    with torch.no_grad():  # of a copy: its running statistics must not move
        return copy.deepcopy(module.generator).train()(module.noise(EXAMINED, seeded()))


def right_of_validation(module: Any) -> Tensor:
    """Of labelled validation images whether the student is right (N,)."""
    images, labels = module.trainer.datamodule.splits["val"]
    found = [
        module.network(torch.from_numpy(np.array(part)).to(module.device)).argmax(1).cpu()
        for part in np.array_split(images, -(-len(images) // 250))
    ]
    return torch.cat(found) == torch.from_numpy(np.array(labels).astype(np.int64))


def on_test_images(module: Any, images: Tensor, labels: Tensor) -> Measured:
    """Both networks on real images, and the student that the oracle chose, where there is one."""
    student, teacher = module.network(images).float(), module.teacher.network(images).float()
    values = {
        "cross_entropy": F.cross_entropy(student, labels, reduction="none"),
        "accuracy": student.argmax(1) == labels,
        "teacher_accuracy": teacher.argmax(1) == labels,
        "agreement": student.argmax(1) == teacher.argmax(1),
        "logit_l1": (student - teacher).abs().mean(1),
    }
    if module.oracle_student is not None:
        values["accuracy_oracle"] = module.oracle_student(images).argmax(1) == labels
    rows = {"label": labels, "probabilities": student.softmax(1), "teacher_probabilities": teacher.softmax(1)}
    return Measured(values["cross_entropy"].mean(), values, rows)


def seeded() -> torch.Generator:
    """The same numbers at every validation, and none of training's."""
    return torch.Generator().manual_seed(0)
