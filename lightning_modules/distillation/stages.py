"""The task's own stages, and what is looked at before the first."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.distillation.figures import save_fakes, save_moments
from lightning_modules.distillation.images import REAL, pictures
from lightning_modules.distillation.measuring import examined
from lightning_modules.distillation.report import FAKES
from lightning_modules.distillation.teacher import NAME, find_teacher, flops_of, keep_teacher, read_teacher, taught

log = logging.getLogger(__name__)
FAKES_SHOWN = 24


def prepare(module: Any, run: Any) -> None:
    """Gives the module its teacher, where there is one, and what a control learns from.

    Raises:
        UsageError: there is no teacher to be had, it is none for these images, or a batch is of one image.
    """
    config = run.config
    if "fit" in config.stages and run.datamodule.batch_size < 2:
        raise UsageError("data.batch_size is 1, but the normalisations need a batch of 2 or more.")
    if module.inputs == "other" and "fit" in config.stages:
        module.other = instantiate(config.task.other_data)
        module.other.prepare_data()
    path = find_teacher(run)
    if path is not None:
        module.take(read_teacher(path, module.network.spec))
        keep_teacher(path, run)
        warn_of_chance(module)
    elif config.stages[0] != "teacher":
        raise UsageError("There is no teacher: begin with stages=[teacher,…], or give teacher=RUN.")


def warn_of_chance(module: Any) -> None:
    accuracy, least = module.teacher.accuracy, 2 / module.network.spec.classes
    if accuracy is not None and accuracy < least:
        log.warning("The teacher is right on %.1f %% of its validation images: no better than chance.", 100 * accuracy)


def have_taught(module: Any, run: Any) -> None:
    """The stage `teacher`: trains one where there is none; its figures, and the student's size beside it."""
    if module.teacher is None:
        module.take(read_teacher(keep_teacher(taught(run), run), module.network.spec))
        warn_of_chance(module)
    module.teacher.network.to(module.device)
    teacher, student, spec = module.teacher.network, module.network.student, module.network.spec
    sizes = [sum(p.numel() for p in network.parameters()) for network in (student, teacher)]
    run.metrics |= {
        "teacher/parameters": sizes[1],
        "parameters_ratio": sizes[0] / sizes[1],
        "flop_ratio": flops_of(student, spec) / flops_of(teacher, spec),
    }
    student.train()
    accuracy = module.teacher.accuracy
    if accuracy is not None:
        run.metrics["teacher/accuracy"] = accuracy
    told = "unknown" if accuracy is None else f"{accuracy:.4f}"
    log.info("the teacher has %s parameters, validation accuracy %s", f"{sizes[1]:,}", told)
    log.info("teacher: %s", run.best_path.with_name(NAME))


def draw(module: Any, run: Any) -> None:
    """The stage `sample`: made-up images now, and at moments of the training, as pictures."""
    module.teacher.network.to(module.device)
    if module.inputs in (*REAL, "other"):
        log.info("sample: task.module.inputs=%s makes no images", module.inputs)
        return
    names, levels = run.datamodule.class_names, module.network.spec.levels
    path, over_time = (run.folder / name for name in FAKES)
    save_fakes(path, *judged(module, examined(module)[:FAKES_SHOWN]), names, levels)
    if module.moments_kept > 1:
        found = [judged(module, images) for images in module.moments[: int(module.moments_kept)]]
        save_moments(over_time, *zip(*found, strict=True), names, levels)
    log.info("sample: %s", path)


@torch.no_grad()
def judged(module: Any, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images as pictures, and the teacher's probabilities."""
    return pictures(x, module.network.student), module.teacher(x).float().softmax(1).cpu().numpy()
