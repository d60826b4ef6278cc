"""A transformer's decoder over the image's positions: one model for the captions of several languages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_captions
from lightning_modules.captioning.encoder import make_encoder
from lightning_modules.captioning.network import Captioner, Taught, Tensors
from lightning_modules.classification.network import require_least, require_share


class Attention(nn.Module):
    """Multi-head attention of queries (B, T, d) on keys and values, which may be kept from before."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, d) → (B, heads, T, d / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(x).chunk(2, 2)
        return self.split(key), self.split(value)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
        # With keys kept from before there is one query, the last: `is_causal` would mask all but the first key.
        found = F.scaled_dot_product_attention(self.split(self.query(x)), key, value, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))

    def looked(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The same without a mask by the explicit softmax, and its weights, a mean over heads (B, T, L)."""
        query = self.split(self.query(x))
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).float().softmax(3)
        found = weights.to(value.dtype) @ value
        return self.out(found.transpose(1, 2).flatten(2)), weights.mean(1)


class Block(nn.Module):
    """Pre-norm: x + self-attention, + cross-attention if it decodes, + feed-forward of 4d with GELU."""

    def __init__(self, width: int, heads: int, dropout: float, cross: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 + cross))
        self.own = Attention(width, heads)
        self.cross = Attention(width, heads) if cross else None
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def rest(self, x: Tensor, seen: tuple[Tensor, Tensor] | None, attention: bool) -> tuple[Tensor, Tensor | None]:
        """What follows the self-attention."""
        weights = None
        if self.cross is not None:
            normed = self.norms[1](x)
            if attention:
                found, weights = self.cross.looked(normed, *seen)
            else:
                found = self.cross(normed, *seen, causal=False)
            x = x + self.dropout(found)
        return x + self.dropout(self.perceptron(self.norms[-1](x))), weights


class CaptionTransformer(Captioner):
    """Images and the words so far → the next word, by cross-attention on the encoder's positions.

    Positions: a linear map of the annotations, learned codes of row and column added, `encoder_layers` pre-norm blocks,
    layer normalisation. Words: embeddings × √d with sinusoidal positions (Vaswani et al. 2017), `layers` pre-norm
    blocks of causal self-attention, cross-attention and a perceptron, layer normalisation, and the embeddings again as
    the output layer. The first word says the language: one model speaks all of them.

    The weights that `teach` gives are the last block's cross-attention, a mean over its heads.

    Args:
        spec: the images, and the vocabulary.
        hidden: d.
        layers, heads: of the decoder.
        encoder_layers: blocks over the positions.
        dropout: of each branch and of the embeddings.
        encoder: `cnn`, trained along, see `TrainedEncoder`; or a published network, see `FrozenEncoder`.
        weights: of a published network: `imagenet`, `none` or a file.
        widths: of the trained one. coordinates, image: see `GridEncoder`.

    Raises:
        UsageError: a size is impossible, or the data has no captions.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 128,
        layers: int = 2,
        heads: int = 4,
        encoder_layers: int = 0,
        dropout: float = 0.1,
        encoder: str = "cnn",
        weights: str = "imagenet",
        widths: Sequence[int] = (32, 64, 96),
        coordinates: bool = True,
        image: bool = True,
    ):
        super().__init__()
        self.spec = require_captions(spec, "The caption transformer")
        require_least(1, hidden=hidden, layers=layers, heads=heads)
        require_least(0, encoder_layers=encoder_layers)
        require_share(dropout=dropout)
        if hidden % heads or hidden % 2:
            raise UsageError(f"model.hidden={hidden} must be even and divisible by model.heads={heads}.")
        self.encoder = make_encoder(self.spec, encoder, weights, widths, coordinates, image)
        self.width = hidden
        self.of_annotation = nn.Linear(self.encoder.size, hidden)
        self.rows = nn.Parameter(torch.randn(self.encoder.rows, 1, hidden) * 0.02)
        self.columns = nn.Parameter(torch.randn(1, self.encoder.columns, hidden) * 0.02)
        self.encoding = nn.ModuleList(Block(hidden, heads, dropout, cross=False) for _ in range(encoder_layers))
        self.encoded = nn.LayerNorm(hidden)
        self.words = nn.Embedding(len(self.spec.vocabulary), hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout, cross=True) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("sinusoids", sinusoids(self.spec.length, hidden), persistent=False)
        nn.init.normal_(self.words.weight, std=hidden**-0.5)

    def remember(self, annotations: Tensor) -> Tensors:
        """Keys and values of the positions, of each block one after the other."""
        x = self.of_annotation(annotations) + (self.rows + self.columns).flatten(0, 1)
        for block in self.encoding:
            normed = block.norms[0](x)
            x = x + block.dropout(block.own(normed, *block.own.keys(normed), causal=False))
            x, _ = block.rest(x, None, False)
        x = self.encoded(x)
        return tuple(part for block in self.blocks for part in block.cross.keys(x))

    def embed(self, codes: Tensor, first: int = 0) -> Tensor:
        places = self.sinusoids[first : first + codes.shape[1]]
        return self.dropout(self.words(codes) * math.sqrt(self.width) + places)

    def teach(self, annotations: Tensor, codes: Tensor, attention: bool = True) -> Taught:
        memory, x, weights = self.remember(annotations), self.embed(codes), None
        for number, block in enumerate(self.blocks):
            normed = block.norms[0](x)
            x = x + block.dropout(block.own(normed, *block.own.keys(normed), causal=True))
            last = number == len(self.blocks) - 1
            x, weights = block.rest(x, memory[2 * number : 2 * number + 2], attention and last)
        return Taught(F.linear(self.norm(x), self.words.weight), weights)

    def begin(self, memory: Tensors) -> Tensors:
        """No keys and values of words yet: each (B, heads, 0, d / heads)."""
        return tuple(part[:, :, :0] for part in memory)

    def step(self, memory: Tensors, state: Tensors, codes: Tensor) -> tuple[Tensor, Tensors]:
        x, kept = self.embed(codes[:, None], state[0].shape[2]), []
        for number, block in enumerate(self.blocks):
            parts = slice(2 * number, 2 * number + 2)
            normed = block.norms[0](x)
            own = [torch.cat(pair, 2) for pair in zip(state[parts], block.own.keys(normed), strict=True)]
            x = x + block.own(normed, *own, causal=False)
            x, _ = block.rest(x, memory[parts], False)
            kept += own
        return F.linear(self.norm(x), self.words.weight)[:, 0], tuple(kept)


def sinusoids(length: int, width: int) -> Tensor:
    """sin and cos of position / 10,000^(2i / d): (length, width) (Vaswani et al. 2017, section 3.5)."""
    angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
