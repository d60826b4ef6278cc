"""The task: a student and a generator that play against each other about a teacher."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.images.shared.data_free import DataFree
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured
from lightning_modules.classification import Classification
from lightning_modules.distillation.checkpoints import write_classifier
from lightning_modules.distillation.comparison import comparison_sections
from lightning_modules.distillation.images import GENERATED, INPUTS, REAL, Source
from lightning_modules.distillation.losses import LOSSES, discrepancy, hinton
from lightning_modules.distillation.measuring import examined, on_made_up_images, on_test_images
from lightning_modules.distillation.network import DFAD
from lightning_modules.distillation.report import report_sections
from lightning_modules.distillation.stages import draw, have_taught, prepare
from lightning_modules.distillation.teacher import Teacher
from lightning_modules.several import SeveralOptimizers
from reporting.load import read_checkpoint
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)
MOMENTS, SHOWN = 6, 16  # moments of the training at which so many images are kept


class Distillation(SeveralOptimizers):
    """min over students, max over generators of D = E_z (1/classes)·|T(G(z)) − S(G(z))|₁, on logits.

    Source: Fang et al. 2019, "Data-Free Adversarial Distillation", arXiv 1912.11006, equations 3 to 5, and its code. A
    batch of training is `student_steps` of the student (imitation), each on new images, and one of the generator on −D.
    The student is in train mode in both, its running statistics those of made-up images; the teacher in evaluation mode
    throughout: what it keeps of its images in running statistics is all that is known of them.

    Logs: `train/loss`, what the student was trained on, `train/discrepancy_generator`, D in the generator's steps.
    Validation sees no real image: `val/discrepancy`, D of images made in train mode, as in training, and
    `val/discrepancy_eval`, of a generator in evaluation mode; `val/agreement`, how often both networks name the same
    class; `val/class_entropy` of the classes that the teacher names, ln(classes) in balance. With `oracle` also
    `val/accuracy_oracle`, on labelled validation images. Test: `accuracy`, `teacher_accuracy`, `accuracy_ratio`,
    `agreement`, `logit_l1` and `cross_entropy` on the real test images.

    Args:
        network: the student, and its generator's recipe.
        optimizer, scheduler: the student's.
        adversary_optimizer, adversary_scheduler: the generator's.
        student_steps: k of the paper.
        loss: l1, mse or kl: see `losses.py`.
        temperature: of kl.
        iterations: batches of an epoch.
        inputs: what the student learns from: see conf/task/distillation.yaml.
        teacher_mode: eval; train is an ablation.
        oracle: also choose a checkpoint by labelled images, to say what that is worth.
        clip: see `SeveralOptimizers`.

    Raises:
        UsageError: a setting is impossible.
    """

    bar = ("discrepancy", "agreement")

    def __init__(
        self,
        network: DFAD,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        adversary_optimizer: MakeOptimizer,
        adversary_scheduler: MakeScheduler,
        student_steps: int = 5,
        loss: str = "l1",
        temperature: float = 1.0,
        iterations: int = 50,
        inputs: str = "generator",
        teacher_mode: str = "eval",
        oracle: bool = False,
        clip: float | None = None,
    ):
        super().__init__(network, optimizer, scheduler, adversary_optimizer, adversary_scheduler, clip)
        for name, value in {"student_steps": student_steps, "iterations": iterations}.items():
            if value < 1:
                raise UsageError(f"task.module.{name} is {value}, but it must be 1 or more.")
        for name, value, known in (
            ("loss", loss, LOSSES),
            ("inputs", inputs, INPUTS),
            ("teacher_mode", teacher_mode, ("eval", "train")),
        ):
            if value not in known:
                raise UsageError(f"task.module.{name} is {value}, but it must be one of {', '.join(known)}.")
        if not temperature > 0:
            raise UsageError(f"task.module.temperature is {temperature}, but it must be above 0.")
        self.student_steps, self.iterations, self.inputs = student_steps, iterations, inputs
        self.loss_kind, self.temperature = loss, temperature
        self.teacher_in_train, self.oracle = teacher_mode == "train", oracle
        self.generator = network.make_generator()
        self.teacher: Teacher | None = None
        self.source: Source | None = None  # of real images, in controls,
        self.other: Any = None  # and the datamodule of those of another kind
        self.oracle_student: nn.Module | None = None
        shape = (MOMENTS, SHOWN, *network.spec.shape)
        self.register_buffer("moments", torch.zeros(shape))  # images at moments of the training
        self.register_buffer("moments_kept", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_oracle", torch.tensor(-1.0))

    # Who plays

    @property
    def players(self) -> Mapping[str, str]:
        generator = {"generator": "adversary_optimizer"} if self.inputs == "generator" else {}
        return {"student": "optimizer"} | generator

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        return (self.network if player == "student" else self.generator).parameters()

    def take(self, teacher: Teacher) -> None:
        """The teacher, and its normalisation for the student."""
        self.teacher, student = teacher, self.network.student
        student.mean.copy_(teacher.network.mean)
        student.sd.copy_(teacher.network.sd)

    # A batch of training

    def play(self, batch: Any) -> Measured:
        losses = torch.stack([self.step("student", self.imitation) for _ in range(self.student_steps)])
        values = {"loss": losses}
        if "generator" in self.players:
            gap = -self.step("generator", self.generation)
            values["discrepancy_generator"] = gap[None]
        return Measured(losses.mean(), values)

    def imitation(self) -> Tensor:
        """What a step of the student lowers, on new images without a graph."""
        x, labels = self.images(self.batch_size)
        if self.inputs == "labels":
            return F.cross_entropy(self.network.student.forward_normalised(x).float(), labels)
        with torch.no_grad():
            teacher = self.teacher(x, self.teacher_in_train)
        student = self.network.student.forward_normalised(x)
        if self.inputs == "hinton":
            return hinton(teacher, student, labels)
        return discrepancy(teacher, student, self.loss_kind, self.temperature)

    def generation(self) -> Tensor:
        """What a step of the generator lowers: −D, whose gradient flows through both networks."""
        x = self.generator(self.noise(self.batch_size))
        student = self.network.student.forward_normalised(x)
        return -discrepancy(self.teacher(x, self.teacher_in_train), student, self.loss_kind, self.temperature)

    @property
    def batch_size(self) -> int:
        return self.trainer.datamodule.batch_size

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """z ~ N(0, I), by the global random state, which a checkpoint keeps, or by a generator's."""
        if generator is None:
            return torch.randn(count, self.generator.latent, device=self.device, dtype=self.dtype)
        return torch.randn(count, self.generator.latent, generator=generator).to(self.device, self.dtype)

    def images(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Normalised images to learn from, and the labels of real ones."""
        if self.inputs in GENERATED:
            with torch.no_grad():
                return self.generator(self.noise(count, generator)), None
        if self.inputs == "noise":
            shape = (count, *self.network.spec.shape)
            drawn = torch.randn(shape, generator=generator) if generator else torch.randn(shape, device=self.device)
            return drawn.to(self.device), None
        x, labels = self.source.draw(count, generator)
        return x, labels

    # Validation, without a real image; test

    def measure(self, batch: Any, split: str) -> Measured:
        return on_test_images(self, *batch) if split == "test" else on_made_up_images(self)

    def on_train_start(self) -> None:
        if self.moments_kept == 0:
            self.keep_moment()

    def on_validated(self, found: Mapping[str, float]) -> None:
        while self.moments_kept < MOMENTS and self.part_done * (MOMENTS - 1) >= self.moments_kept - 1e-9:
            self.keep_moment()
        if self.oracle and found["val/accuracy_oracle"] > self.best_oracle:
            self.best_oracle.fill_(found["val/accuracy_oracle"])
            self.write_student(self.oracle_path, found)

    @torch.no_grad()
    def keep_moment(self) -> None:
        self.moments[self.moments_kept] = examined(self)[:SHOWN].float()
        self.moments_kept += 1

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        if split != "test":
            return {}
        ratio = means["accuracy"] / means["teacher_accuracy"].clamp(min=1e-12)
        return {"accuracy_ratio": ratio, "class_names": np.array(self.trainer.datamodule.class_names)}

    # Its parts on the device

    def on_fit_start(self) -> None:
        self.teacher.network.to(self.device)
        spec, data, student = self.network.spec, self.trainer.datamodule, self.network.student
        if self.inputs in REAL:
            self.source = Source(data.splits["train"], spec, spec, student.mean, student.sd)
        elif self.inputs == "other":
            self.source = Source(self.other.splits["train"], self.other.spec, spec, student.mean, student.sd)

    def on_test_start(self) -> None:
        self.teacher.network.to(self.device)
        self.oracle_student = None
        if self.oracle and self.oracle_path.is_file():
            kept = read_checkpoint(self.oracle_path)["state_dict"]
            self.oracle_student = copy.deepcopy(self.network.student)
            self.oracle_student.load_state_dict({name.removeprefix("network."): v for name, v in kept.items()})

    @property
    def oracle_path(self) -> Path:
        return Path(self.trainer.default_root_dir) / "checkpoints" / "oracle.ckpt"

    # Stages

    def data_of(self, datamodule: Any) -> DataFree:
        return DataFree(datamodule, self.iterations)

    def check_stages(self, run: Any) -> None:
        """Also takes the teacher, where there is one."""
        self.config = run.config  # which the student's checkpoint will hold
        prepare(self, run)

    def stage_teacher(self, run: Any) -> None:
        """The teacher: `teacher=`, or one trained as `task.teaching` says; left as checkpoints/teacher.ckpt."""
        have_taught(self, run)

    def stage_sample(self, run: Any) -> None:
        """Images that the student learns from, with the teacher's opinion; at moments of the training."""
        draw(self, run)

    def stage_export(self, run: Any) -> None:
        """The student alone, as checkpoints/student.ckpt, a checkpoint of task=classification."""
        path = self.write_student(run.best_path.with_name("student.ckpt"), run.metrics)
        log.info("the student is now a checkpoint of task=classification, to be tested and attacked there")
        log.info("export: %s", path)

    def write_student(self, path: Path, metrics: Mapping[str, float]) -> Path:
        kept = {name: float(value) for name, value in metrics.items() if name.startswith(("train/", "val/"))}
        student, config = self.network.student, self.network.config()
        steps = int(metrics.get("steps", 0)) or self.batches_done
        return write_classifier(path, student, self.network.spec, self.config, self.network.model, config, kept, steps)

    def report(self, run: Any) -> list[Section]:
        self.to(self.trainer.strategy.root_device)
        self.teacher.network.to(self.device)
        with torch.no_grad():
            made = examined(self) if self.inputs in (*GENERATED, "noise") else None
        return report_sections(self.network.student, self.teacher, made, run)

    # Beside other runs

    item_figures = staticmethod(Classification.item_figures)

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """The students and what each learned from; then what runs of classification show."""
        return comparison_sections(runs, folder)
