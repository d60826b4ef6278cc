"""Sketch-RNN (Ha & Eck 2017, arXiv 1704.03477), with and without its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_sketches
from datamodules.strokes.forms import END
from lightning_modules.sketch.attention import EncoderAttention, Past, PastAttention
from lightning_modules.sketch.mixture import outputs
from lightning_modules.sketch.recurrence import CELLS, Dropout, LayerNormLSTM, State, StrokeLSTM

ATTENTIONS = ("none", "past", "encoder")


class Encoded(NamedTuple):
    """What attention looks at of a drawing: the encoder's states (B, N, 2·encoder), and how many are of points (B,)."""

    states: Tensor
    lengths: Tensor


class Pen(NamedTuple):
    """Where a drawing in progress stands: the recurrent state, the pen's position (B, 2), and what attention keeps."""

    state: State | None
    position: Tensor
    past: Past | None = None


class StrokeDecoder(nn.Module):
    """What the networks share: strokes so far → the density of the next one.

    Its inputs are the last stroke S_{i−1}, with `absolute` the pen's position (the sum of all offsets so far), and
    what is the same at every step: z and a vector of the class. Positions are given in √N_max, about what they reach.

    Raises:
        UsageError: the data is no drawings, or a setting is impossible.
    """

    latent = 0

    def __init__(
        self,
        spec: Spec,
        decoder: int,
        mixtures: int,
        attention: str,
        absolute: bool,
        cell: str,
        layers: int,
        embedding: int,
        dropout: Mapping[str, Any],
        encoded: int = 0,
    ):
        super().__init__()
        self.spec = require_sketches(spec, type(self).__name__)
        sizes = {"decoder": decoder, "mixtures": mixtures, "layers": layers, "embedding": embedding}
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"model.{name} is {value!r}, but it must be a whole number, 1 or more.")
        if cell not in CELLS:
            raise UsageError(f"model.cell is '{cell}': choose one of {', '.join(CELLS)}.")
        self.absolute, self.looks, self.dropout = absolute, attention, Dropout.of(dropout)
        classes = self.spec.classes
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.condition_width = self.latent + (embedding if classes else 0)
        inputs = 5 + 2 * absolute + self.condition_width
        recurrence = StrokeLSTM if cell == "lstm" else LayerNormLSTM
        self.recurrent = recurrence(inputs, decoder, layers, self.dropout)
        self.attention: nn.Module | None = None
        if attention == "past":
            self.attention = PastAttention(decoder)
        elif attention == "encoder" and encoded:
            self.attention = EncoderAttention(decoder, encoded)
        elif attention != "none":
            known = ", ".join(ATTENTIONS if encoded else ATTENTIONS[:2])
            raise UsageError(f"model.attention is '{attention}': choose one of {known}.")
        self.output = nn.Linear(decoder + (self.attention.context if self.attention else 0), outputs(mixtures))
        # Means that begin apart find apart what there is; magenta's begin together.
        nn.init.normal_(self.output.bias[mixtures : 3 * mixtures])

    def class_vectors(self, labels: Tensor | None, batch: int) -> Tensor:
        """(B, embedding) of labels (B,); 0 where no class is told, (B, 0) of data without classes."""
        weights = self.output.weight
        if self.embedding is None:
            return weights.new_zeros(batch, 0)
        return weights.new_zeros(batch, self.embedding.embedding_dim) if labels is None else self.embedding(labels)

    def start(self, z: Tensor | None) -> State | None:
        """The recurrent state before the first stroke: zero."""
        return None

    def decode(self, strokes: Tensor, z: Tensor | None, classes: Tensor, encoded: Encoded | None = None) -> Tensor:
        """S_1 … S_T (B, T, 5) → the numbers of the densities of S_1 … S_T (B, T, 6M + 3), each given those before it.

        Args:
            z: (B, latent); None: there is none.
            classes: vectors of the classes (B, embedding).
            encoded: of `attention=encoder`, what to look at.
        """
        before = torch.cat([first_strokes(strokes), strokes[:, :-1]], 1)
        positions = before[..., :2].cumsum(1)
        features, _ = self.recurrent(self.inputs(before, positions, z, classes), self.start(z))
        if isinstance(self.attention, PastAttention):
            features = torch.cat([features, self.attention(features, self.scaled(positions))], -1)
        elif self.attention is not None:
            features = torch.cat([features, self.attention(features, *encoded)], -1)
        return self.numbers(features)

    def numbers(self, features: Tensor) -> Tensor:
        """The output layer, in float32 whatever the precision: half of it would round where strokes lead."""
        with torch.autocast(features.device.type, enabled=False):
            return self.output(features.to(self.output.weight.dtype))

    def inputs(self, before: Tensor, positions: Tensor, z: Tensor | None, classes: Tensor) -> Tensor:
        always = classes if z is None else torch.cat([z, classes.to(z.dtype)], -1)
        parts = [before, self.scaled(positions)] if self.absolute else [before]
        return torch.cat([*parts, always[:, None].expand(-1, before.shape[1], -1)], -1)

    def scaled(self, positions: Tensor) -> Tensor:
        return positions / self.spec.length**0.5

    def step(
        self, before: Tensor, pen: Pen, z: Tensor | None, classes: Tensor, encoded: Encoded | None = None
    ) -> tuple[Tensor, Tensor | None, Pen]:
        """One step of `decode`, for drawing: the last stroke (B, 5) → numbers (B, 6M + 3), what is attended to, pen."""
        position = pen.position + before[:, :2]
        features, state = self.recurrent(self.inputs(before[:, None], position[:, None], z, classes), pen.state)
        weights, past = None, None
        if isinstance(self.attention, PastAttention):
            context, weights, past = self.attention.step(features, self.scaled(position[:, None]), pen.past)
            features = torch.cat([features, context], -1)
        elif self.attention is not None:
            features = torch.cat([features, self.attention(features, *encoded)], -1)
        return self.numbers(features)[:, 0], weights, Pen(state, position, past)


class SketchDecoder(StrokeDecoder):
    """The decoder alone, without z: (B, T, 5) and labels (B,) → the numbers of the densities (B, T, 6M + 3).

    Args:
        spec: the drawings.
        decoder: width of its LSTM.
        mixtures: M, Gaussians of a density.
        attention: none, or past: to all steps before.
        absolute: the pen's position is an input.
        cell: lstm, or layer_norm.
        layers: of the LSTM.
        embedding: width of a class's vector.
        dropout: `p` and `kind` of the recurrent dropout: none, tied, memory.

    With M = 20, 512 units, no attention, no position and no classes: 1,126,011 parameters.
    """

    def __init__(
        self,
        spec: Spec,
        decoder: int = 512,
        mixtures: int = 20,
        attention: str = "past",
        absolute: bool = True,
        cell: str = "lstm",
        layers: int = 1,
        embedding: int = 16,
        dropout: Mapping[str, Any] = {"p": 0.1, "kind": "tied"},
    ):
        super().__init__(spec, decoder, mixtures, attention, absolute, cell, layers, embedding, dropout)

    def forward(self, strokes: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode(strokes, None, self.class_vectors(labels, len(strokes)))


class SketchRNN(StrokeDecoder):
    """The variational autoencoder: drawings (B, T, 5) and labels (B,) → the numbers of the densities (B, T, 6M + 3),
    and mean and log variance of z, (B, latent) each.

    Encoder, eqs. 1–2: an LSTM in each direction over S_1 … S_N alone, neither S_0 nor padding; from their last states
    μ and σ̂; z = μ + exp(σ̂/2) ε. Decoder, eqs. 3–7: begins at tanh(W_z z + b) and has z at every step.

    Args:
        encoder: width of each direction of the encoder's LSTM.
        latent: N_z.
        attention: none, past, or encoder: to the encoder's states, which can only redraw.
        others: see `SketchDecoder`.

    With 256, 512, 128, M = 20, no attention, no position and no classes: 2,190,203 parameters (magenta, with one bias
    of an LSTM where torch has two: 2,186,107).
    """

    def __init__(
        self,
        spec: Spec,
        encoder: int = 256,
        decoder: int = 512,
        latent: int = 128,
        mixtures: int = 20,
        attention: str = "past",
        absolute: bool = True,
        cell: str = "lstm",
        layers: int = 1,
        embedding: int = 16,
        dropout: Mapping[str, Any] = {"p": 0.1, "kind": "tied"},
    ):
        for name, value in {"encoder": encoder, "latent": latent}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"model.{name} is {value!r}, but it must be a whole number, 1 or more.")
        self.latent = latent
        super().__init__(
            spec, decoder, mixtures, attention, absolute, cell, layers, embedding, dropout, encoded=2 * encoder
        )
        inputs = 5 + self.condition_width - latent
        self.onward, self.backward = (StrokeLSTM(inputs, encoder, layers, self.dropout) for _ in range(2))
        self.mean, self.log_variance = nn.Linear(2 * encoder, latent), nn.Linear(2 * encoder, latent)
        for head in (self.mean, self.log_variance):
            nn.init.normal_(head.weight, std=0.001)
            nn.init.normal_(head.bias, std=0.001)
        self.initial = nn.Linear(latent, 2 * layers * decoder)

    def encode(self, strokes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Encoded]:
        """μ and σ̂ (B, latent), whatever the padding; and the states they come from."""
        lengths = (strokes[..., 2 + END] == 0).sum(1)
        inputs = torch.cat([strokes, classes[:, None].expand(-1, strokes.shape[1], -1).to(strokes.dtype)], -1)
        steps = torch.arange(strokes.shape[1], device=strokes.device)
        turned = (lengths[:, None] - 1 - steps).clamp(min=0)[..., None]  # the last point first
        onward, _ = self.onward(inputs)
        backward, _ = self.backward(inputs.gather(1, turned.expand_as(inputs)))
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, onward.shape[-1])
        both = torch.cat([onward.gather(1, last), backward.gather(1, last)], -1)[:, 0]
        states = torch.cat([onward, backward.gather(1, turned.expand_as(backward))], -1)
        return self.mean(both), self.log_variance(both), Encoded(states, lengths.clamp(min=1))

    def start(self, z: Tensor | None) -> State | None:
        """tanh(W_z z + b), eq. 3: h and c of every layer."""
        state = torch.tanh(self.initial(z)).view(len(z), 2, self.recurrent.num_layers, -1)
        return tuple(part.transpose(0, 1).contiguous() for part in state.unbind(1))

    def forward(
        self, strokes: Tensor, labels: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """With `noise` ε (B, latent); None: drawn in training, 0 otherwise."""
        classes = self.class_vectors(labels, len(strokes))
        mean, log_variance, encoded = self.encode(strokes, classes)
        z = mean
        if noise is not None or self.training:
            z = mean + torch.exp(log_variance / 2) * (torch.randn_like(mean) if noise is None else noise.to(mean))
        return self.decode(strokes, z, classes, encoded), mean, log_variance


def first_strokes(strokes: Tensor) -> Tensor:
    """S_0 = (0, 0, 1, 0, 0) of each drawing (B, 1, 5)."""
    first = torch.zeros_like(strokes[:, :1])
    first[..., 2] = 1
    return first
