"""A network from scratch: forward and backward passes written by hand, gradient descent three ways."""

from lightning_modules.scratch_mlp.module import ScratchTraining
from lightning_modules.scratch_mlp.network import ScratchMLP

__all__ = ["ScratchMLP", "ScratchTraining"]
