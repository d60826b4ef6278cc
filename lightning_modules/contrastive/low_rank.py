"""Low-rank adaptation: a frozen weight W becomes W + B A, and A and B alone are trained.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4.1, with
α = r, so that its factor α / r is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from datamodules.errors import UsageError


class LowRank(nn.Module):
    """A weight (out, …) → the weight plus B A, as a parametrisation of torch's.

    Of `slices` parts of the rows, those of queries, keys and values, `adapted` have an A and a B of their own; a
    convolution's kernel counts as a matrix (out, in · k · k). B begins at 0: the first output is the frozen one's.

    Raises:
        UsageError: the rank is above what the matrix can have.
    """

    def __init__(self, shape: torch.Size, rank: int, slices: int = 1, adapted: tuple[int, ...] = (0,)):
        super().__init__()
        outputs, inputs = shape[0] // slices, math.prod(shape[1:])
        if not 1 <= rank <= min(outputs, inputs):
            raise UsageError(
                f"model.rank is {rank}, but it must be from 1 to {min(outputs, inputs)}: a weight here is "
                f"{outputs}×{inputs}."
            )
        self.slices, self.adapted = slices, adapted
        self.a = nn.ParameterList(nn.Parameter(torch.empty(rank, inputs)) for _ in adapted)
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(outputs, rank)) for _ in adapted)
        for a in self.a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        parts = list(weight.flatten(1).chunk(self.slices))
        for part, a, b in zip(self.adapted, self.a, self.b, strict=True):
            parts[part] = parts[part] + b @ a
        return torch.cat(parts).view_as(weight)


def adapt_(tower: nn.Module, rank: int) -> None:
    """Gives a frozen tower's matrices a low-rank part each: queries' and values' of every attention, perceptrons, and
    convolutions but the first, which has only the image's channels. Heads and embeddings stay as they are.

    Raises:
        UsageError: the rank is impossible, or the tower has no such matrix.
    """
    found = list(weights_of(tower))
    if not found:
        raise UsageError("task.module.defence=lora finds nothing to adapt in this image tower: choose another defence.")
    for module, name, slices in found:
        weight = getattr(module, name)
        adapted = (0, 2) if slices == 3 else (0,)
        parametrize.register_parametrization(module, name, LowRank(weight.shape, rank, slices, adapted))


def weights_of(tower: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    """(module, its weight's name, parts of the weight's rows) of all that is adapted."""
    first = True
    for name, module in tower.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield module, "in_proj_weight", 3
        elif name.endswith("qkv"):
            yield module, "weight", 3
        elif isinstance(module, nn.Linear) and ".mlp" in f".{name}":
            yield module, "weight", 1
        elif isinstance(module, nn.Conv2d):
            if not first:
                yield module, "weight", 1
            first = False


def merge_(tower: nn.Module) -> None:
    """W ← W + B A, for good: the tower has its plain form again."""
    for module in list(tower.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def plain_name(name: str) -> str:
    """What an adapted weight's frozen part was called before: `x.parametrizations.weight.original` → `x.weight`."""
    return name.replace("parametrizations.", "").removesuffix(".original")
