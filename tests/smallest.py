"""What the tests of every configuration need of a task: `SMALLEST` in tests/<task>/smallest.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datamodules.spec import ImageSpec, SeriesSpec, SketchSpec, Spec, TextSpec

GREY = ImageSpec(1, 4, 5, 3)


@dataclass(frozen=True)
class Smallest:
    """A task's smallest run, and what its networks map to what.

    `words` make any run of the task small, `model_words` one of that model. On data of `spec` the networks' output for
    a batch of so many has the shape `output(spec, batch)`.
    """

    output: Callable[[Spec, int], tuple[int, ...]]
    spec: Spec = GREY
    words: list[str] = field(default_factory=list)
    model_words: Mapping[str, list[str]] = field(default_factory=dict)

    def words_of(self, model: str) -> list[str]:
        return [*self.words, *self.model_words.get(model, [])]


def inputs(spec: Spec) -> Tensor:
    """Two images, two windows of a series, two drawings of seven strokes, or two windows of seven codes."""
    if isinstance(spec, TextSpec):
        return torch.zeros(2, 7, dtype=torch.int64)
    if isinstance(spec, SeriesSpec):
        return torch.zeros(2, spec.window, len(spec.channels))
    if isinstance(spec, SketchSpec):
        return torch.zeros(2, 7, 5)
    return torch.zeros(2, *spec.shape, dtype=torch.uint8)
