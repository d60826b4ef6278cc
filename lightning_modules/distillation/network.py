"""The student, and what its generator is to be."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification import CNN, LeNet5, ResNet
from lightning_modules.distillation.generator import Generator

# Of each student its class, the model=… of task=classification, and its settings, given a width.
STUDENTS = {
    "lenet5": (LeNet5, "lenet5", lambda width: {"width": float(width)}),
    "cnn": (CNN, "cnn", lambda width: {"filters": int(width), "depth": 5, "dropout": 0.0, "channels_last": True}),
    **{
        f"resnet{depth}": (
            ResNet,
            "resnet",
            lambda width, depth=depth: {"depth": depth, "width": int(width), "preactivation": False},
        )
        for depth in (10, 18, 34)
    },
}


class DFAD(nn.Module):
    """The student, an ordinary classifier: images (B, C, H, W) → logits (B, classes); and the recipe of its generator.

    The generator is no part of it: what is counted, averaged and read back is the student.

    Args:
        spec: the images and their classes.
        student: lenet5, cnn (five convolutions), resnet10, resnet18 or resnet34.
        student_width: of lenet5 the multiple of its features, of the others the first width.
        latent, generator, generator_width, last_norm: see `Generator`.

    Raises:
        UsageError: there is no such student, its width is impossible, or the generator cannot be.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        student: str,
        student_width: float,
        latent: int,
        generator: str,
        generator_width: int,
        last_norm: bool,
    ):
        super().__init__()
        if student not in STUDENTS:
            raise UsageError(f"model.student is {student}, but it must be one of {', '.join(STUDENTS)}.")
        if student != "lenet5" and student_width != int(student_width):
            raise UsageError(f"model.student_width is {student_width}, but of {student} it must be a whole number.")
        kind, self.model, settings = STUDENTS[student]
        self.settings: dict[str, Any] = {**settings(student_width), "normalise": True}
        self.student = kind(spec, **self.settings)
        self.spec = self.student.spec
        self.recipe = {"latent": latent, "kind": generator, "width": generator_width, "last_norm": last_norm}
        self.make_generator()  # which refuses what cannot be

    def make_generator(self) -> Generator:
        return Generator(self.spec, **self.recipe)

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images)

    def config(self) -> dict[str, Any]:
        """The student as a file of conf/model/ has it."""
        kind = type(self.student)
        return {"_target_": f"lightning_modules.classification.{kind.__name__}", "_convert_": "object", **self.settings}
