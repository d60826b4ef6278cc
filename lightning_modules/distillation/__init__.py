"""Data-free adversarial distillation: a student, its generator, and the game they play about a teacher."""

from lightning_modules.distillation.generator import Generator
from lightning_modules.distillation.module import Distillation
from lightning_modules.distillation.network import DFAD

__all__ = ["DFAD", "Distillation", "Generator"]
