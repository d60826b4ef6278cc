"""What both networks are to those who train them and decode from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.spec import CaptionSpec
from lightning_modules.captioning.encoder import GridEncoder

Tensors = tuple[Tensor, ...]


class Taught(NamedTuple):
    """Of each input word what follows it: logits (B, T, V); and where was looked for it, weights (B, T, L) or None."""

    logits: Tensor
    weights: Tensor | None


class Captioner(nn.Module):
    """An encoder and a decoder of words, taught by true sentences or decoding its own, step by step.

    `remember` gives what stays the same over a sentence and `begin` what changes: tuples of tensors, whose first
    dimension are the sentences. Rows of the latter may be exchanged between hypotheses of one image.
    """

    encoder: GridEncoder
    spec: CaptionSpec

    def forward(self, images: Tensor, codes: Tensor | None = None) -> Taught:
        """Teacher forcing: what follows each of the codes (B, T); without codes, of the first language's start."""
        if codes is None:
            codes = torch.full((len(images), 1), self.spec.start(self.spec.languages[0]), device=images.device)
        return self.teach(self.encoder(images), codes)

    @abstractmethod
    def teach(self, annotations: Tensor, codes: Tensor, attention: bool = True) -> Taught:
        """What follows each of the codes (B, T), given those before it, and the annotations (B, L, D).

        `attention=False`: the weights may be None, where that is faster.
        """

    @abstractmethod
    def remember(self, annotations: Tensor) -> Tensors:
        """What each step needs of the annotations."""

    @abstractmethod
    def begin(self, memory: Tensors) -> Tensors:
        """The state before the first word."""

    @abstractmethod
    def step(self, memory: Tensors, state: Tensors, codes: Tensor) -> tuple[Tensor, Tensors]:
        """One word each (B,) → logits of the next (B, V), and the state after it."""
