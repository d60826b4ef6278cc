"""The networks: a bidirectional recurrence over the past, attention over its states, a Gaussian for each lead.

x̃ = x − x_L → recurrence, masks tied over time → s_t = [h→_t; h←_t] → [Σ α_t s_t; h→_L; h←_1] → (μ, log σ²), + A x̃
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.forecasting.network import Forecast, Forecaster, Masks, choose, level_of
from lightning_modules.tied_dropout import draw_masks, looped_recurrence, masked_recurrence

KINDS = ("tied", "untied", "naive", "none")
POOLINGS = ("attention", "last", "mean")
LEVELS = ("none", "variance", "both")
ENGINES = {"weights": masked_recurrence, "loop": looped_recurrence}
FOR_INPUT_DROPOUT = 8  # channels: with one, dropping it drops the window
MOST = 8192  # features, layers


class AttentionPooling(nn.Module):
    """α = softmax(vᵀ tanh(W s_t + b)) over the steps of states (B, T, features); α = 0 for steps not `seen` (B, T)
    (additive attention, Bahdanau et al. 2015, arXiv 1409.0473)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.project, self.score = nn.Linear(features, width), nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, seen: Tensor) -> Tensor:
        """α (B, T)."""
        scores = self.score(self.project(states).tanh()).squeeze(-1).float()
        return scores.masked_fill(~seen, -torch.inf).softmax(1).nan_to_num(0.0)


class Recurrent(Forecaster):
    """Both directions read the window alone, nothing after its last step; what they read is (x̃∘m, m), m what is
    observed.

    Parameters of the default sizes, two layers of 64, one channel: Bi-LSTM 150,640, Bi-GRU 117,104, without the skip,
    which adds (L + 1) H.

    Args:
        spec: of the series.
        hidden: features of a state, of each direction.
        layers: one upon the other.
        dropout: p: the probability of dropping. kind: tied: the same mask at every step, one for all gates (Gal &
            Ghahramani 2016, arXiv 1512.05287); untied: one for each gate; naive: a fresh one at every step, and none
            on what recurs (Zaremba et al. 2014, arXiv 1409.2329); none. input: the probability for what the first
            layer reads, of tied and untied masks.
        pooling: what stands for the whole window: attention over the states, the last of them, or their mean.
        attention: features of the attention.
        linear_skip: adds A x̃ + a to the mean, A (H, L) from zero, the same for every target: no mask on it.
        level: whether centre and liveliness of the window, log std of its steps, are shown to neither head, to that of
            the variance, or to both. The recurrence sees centred windows and does not know the level.
        center: see `Forecaster`.
        engine: weights: torch's recurrence with masked weights, a mask for a batch; loop: step by step, a mask for each
            window.

    Raises:
        UsageError: a choice is unknown, or a number impossible.
    """

    recurrence: type[nn.LSTM] | type[nn.GRU]

    def __init__(
        self,
        spec: Spec,
        hidden: int = 64,
        layers: int = 2,
        dropout: dict[str, Any] | None = None,
        pooling: str = "attention",
        attention: int = 32,
        linear_skip: bool = True,
        level: str = "none",
        center: str = "last",
        engine: str = "weights",
    ):
        super().__init__(spec, center)
        for name, size in {"hidden": hidden, "layers": layers, "attention": attention}.items():
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MOST:
                raise UsageError(f"model.{name} is {size!r}, but it must be a whole number from 1 to {MOST:,}.")
        for name, word, known in [("pooling", pooling, POOLINGS), ("level", level, LEVELS),
                                  ("engine", engine, tuple(ENGINES))]:  # fmt: skip
            choose(name, word, known)
        channels, outputs = len(spec.channels), spec.horizon * len(spec.target)
        self.kind, self.p, self.input_p = checked_dropout(channels, **(dropout or {}))
        self.pooling, self.level, self.engine = pooling, level, engine
        self.recurrent = self.recurrence(2 * channels, hidden, layers, batch_first=True, bidirectional=True)
        self.attention = AttentionPooling(2 * hidden, attention) if pooling == "attention" else None
        self.head = nn.Linear(4 * hidden, 2 * outputs)
        self.skip = nn.Linear(spec.window, spec.horizon) if linear_skip else None
        # Of the mean and the log variance, or of the latter alone.
        parts = {"none": 0, "variance": 1, "both": 2}[level]
        self.from_level = nn.Linear(2 * channels, parts * outputs) if parts else None
        for layer in (self.skip, self.from_level):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def draw(self, generator: torch.Generator | None = None, rows: int = 1) -> Masks:
        """The masks of one pass: the same for all windows, or for each of so many `rows`."""
        if self.kind == "none" or self.p == self.input_p == 0:
            return {}
        width = self.recurrent.hidden_size
        if self.kind == "naive":  # of what each layer gives
            layers, shape = self.recurrent.num_layers, (rows, self.spec.window, 2 * width)
            return {f"above_{layer}": self._mask(shape, generator) for layer in range(layers)}
        sequences = rows if self.engine == "loop" else 1
        drawn = draw_masks(self.recurrent, self.p, generator, self.kind, self.input_p, sequences)
        return drawn | {"pooled": self._mask((rows, 4 * width), generator)}

    def _mask(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        kept = torch.rand(shape, generator=generator) >= self.p
        return (kept / (1 - self.p)).to(self.head.weight)

    def forecast(self, x: Tensor, observed: Tensor, masks: Masks) -> Forecast:
        level = level_of(x, observed, self.center)
        centred = (x - level[:, None]) * observed
        states = self.states(torch.cat([centred, observed.to(x.dtype)], -1), masks)
        pooled = self.pool(states, observed.any(-1)) * masks.get("pooled", 1.0)
        mean, change = self.head(pooled).view(len(x), 2, self.spec.horizon, -1).unbind(1)
        if self.from_level is not None:
            added = self.from_level(liveliness(centred, observed, level)).view(len(x), -1, *mean.shape[1:])
            change = change + added[:, 0]
            mean = mean + added[:, 1] if self.level == "both" else mean
        if self.skip is not None:
            mean = mean + self.skip(centred[..., self.target].mT).mT
        return self.gaussian(mean + level[:, None, self.target], change)

    def states(self, x: Tensor, masks: Masks) -> Tensor:
        """s_t (B, T, 2 · hidden)."""
        if "above_0" not in masks:
            return ENGINES[self.engine](self.recurrent, x, masks)[0]
        # Naive dropout stands between the layers: each is run by itself.
        for number in range(self.recurrent.num_layers):
            x = one_layer(self.recurrent, number, x) * masks[f"above_{number}"]
        return x

    def pool(self, states: Tensor, seen: Tensor) -> Tensor:
        """[context; h→_L; h←_1] (B, 4 · hidden)."""
        forward, backward = states[:, -1].chunk(2, -1)[0], states[:, 0].chunk(2, -1)[1]
        if self.pooling == "last":
            context = states[:, -1]
        else:
            context = torch.einsum("bt,bts->bs", self.weights(states, seen).to(states.dtype), states)
        return torch.cat([context, forward, backward], -1)

    def weights(self, states: Tensor, seen: Tensor) -> Tensor:
        """What each step counts for in the context (B, T)."""
        if self.attention is not None:
            return self.attention(states, seen)
        return seen / seen.sum(1, keepdim=True).clamp(min=1)

    @torch.no_grad()
    def attended(self, x: Tensor, observed: Tensor) -> Tensor:
        """α (B, T) of windows in their own units."""
        scaled = self.scaled(x, observed)
        centred = (scaled - level_of(scaled, observed, self.center)[:, None]) * observed
        states = self.states(torch.cat([centred, observed.to(scaled.dtype)], -1), {})
        return self.weights(states, observed.any(-1))

    def decayed(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights whose inputs are dropped, and biases: those that the prior of the dropout's posterior is over."""
        naive = self.kind == "naive"
        whole = ("weight_ih_l0",) * (naive or not self.input_p) + ("weight_hh",) * naive  # whose inputs are not dropped
        named = [*self.recurrent.named_parameters(), *self.head.named_parameters()]
        weights = [value for name, value in named if name.startswith("weight") and not name.startswith(whole)]
        return weights, [value for name, value in named if name.startswith("bias")]


class BiLSTM(Recurrent):
    """Hochreiter & Schmidhuber 1997, with a forget gate (Gers et al. 2000), in both directions."""

    recurrence = nn.LSTM


class BiGRU(Recurrent):
    """Cho et al. 2014, arXiv 1406.1078, in both directions; torch's form, reset gate after the recurrent product."""

    recurrence = nn.GRU


def checked_dropout(channels: int, p: float = 0.1, kind: str = "tied", input: float = 0.0) -> tuple[str, float, float]:
    """Kind and probabilities.

    Raises:
        UsageError: one cannot be.
    """
    choose("dropout.kind", kind, KINDS)
    for name, value in {"p": p, "input": input}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise UsageError(f"model.dropout.{name} is {value!r}, but it must be from 0 up to, not including, 1.")
    if input and channels < FOR_INPUT_DROPOUT:
        raise UsageError(
            f"model.dropout.input is {input}, but of {channels} channel{'s' * (channels > 1)} a mask would often leave "
            f"nothing of a window: it needs {FOR_INPUT_DROPOUT} channels."
        )
    return kind, float(p), float(input)


def one_layer(recurrent: nn.LSTM | nn.GRU, number: int, x: Tensor) -> Tensor:
    """What one layer of several makes of x (B, T, features) in both directions, from the zero state."""
    ending = f"_l{number}"
    flat = [value for name, value in recurrent.named_parameters() if ending in name]
    zero = x.new_zeros(2, len(x), recurrent.hidden_size)
    lstm = isinstance(recurrent, nn.LSTM)
    run, before = (torch.lstm, [zero, zero]) if lstm else (torch.gru, zero)
    return run(x, before, flat, True, 1, 0.0, recurrent.training, True, True)[0]


def liveliness(centred: Tensor, observed: Tensor, level: Tensor) -> Tensor:
    """The centre of each channel, and the log of the standard deviation of a window's steps (B, 2C)."""
    both = observed[:, 1:] & observed[:, :-1]
    squares = (centred.diff(dim=1) * both).square().sum(1) / both.sum(1).clamp(min=1)
    return torch.cat([level, 0.5 * (squares + 1e-4).log()], -1)
