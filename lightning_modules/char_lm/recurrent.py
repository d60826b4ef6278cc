"""The networks: embedding, recurrent layers, softmax over the vocabulary. torch's own fused recurrences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import TextSpec, require_text

State = tuple[Tensor, ...]  # each (layers, B, hidden): h and c of an LSTM, h of a GRU


class RecurrentLM(nn.Module):
    """p(next code | all codes before it), as logits.

    Args:
        spec: of the text.
        embedding: features of a code's embedding.
        hidden: features of a layer's state.
        layers: how many, one upon the other.
        dropout: the fraction of features dropped between layers, and, where the next two are None, there as well.
        embedding_dropout: of the embeddings.
        output_dropout: of what the last layer gives to the softmax.
        tied: the softmax's weights are the embeddings (Press & Wolf 2017, arXiv 1608.05859); where hidden is not as
            wide as they are, a linear layer without bias stands between.

    Raises:
        UsageError: the data is no text, or a number is impossible.
    """

    recurrence: type[nn.LSTM] | type[nn.GRU]

    def __init__(
        self,
        spec: TextSpec,
        embedding: int = 256,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        embedding_dropout: float | None = None,
        output_dropout: float | None = None,
        tied: bool = False,
    ):
        super().__init__()
        self.spec = require_text(spec, type(self).__name__)
        for name, value in [("embedding", embedding), ("hidden", hidden), ("layers", layers)]:
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"model.{name} is {value!r}, but it must be a whole number, 1 or more.")
        embedding_dropout = dropout if embedding_dropout is None else embedding_dropout
        output_dropout = dropout if output_dropout is None else output_dropout
        for name, value in [("dropout", dropout), ("embedding_dropout", embedding_dropout),
                            ("output_dropout", output_dropout)]:  # fmt: skip
            if not 0 <= value < 1:
                raise UsageError(f"model.{name} is {value}, but it must be at least 0 and below 1.")
        codes = len(spec.tokens)
        self.embedding = nn.Embedding(codes, embedding)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        between = dropout if layers > 1 else 0.0  # torch warns about one that has no place
        self.recurrent = self.recurrence(embedding, hidden, layers, batch_first=True, dropout=between)
        self.output_dropout = nn.Dropout(output_dropout)
        if tied:
            self.narrow = nn.Identity() if hidden == embedding else nn.Linear(hidden, embedding, bias=False)
            nn.init.normal_(self.embedding.weight, std=embedding**-0.5)  # logits of a sensible size
            self.output = nn.Linear(embedding, codes)
            self.output.weight = self.embedding.weight
        else:
            self.narrow = nn.Identity()
            self.output = nn.Linear(hidden, codes)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Codes (B, T) and the state before them (None: zero) → logits (B, T, V) of the next codes, and the state."""
        features, state = self.features(inputs, state)
        return self.output(self.narrow(self.output_dropout(features))), state

    def features(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What the last layer gives (B, T, hidden), and the state after the last code."""
        embedded = self.embedding_dropout(self.embedding(inputs.long()))
        before = self.unpack(state) if state is not None else None
        features, after = self.recurrent(embedded, before)
        return features, after if isinstance(after, tuple) else (after,)

    def unpack(self, state: State) -> State | Tensor:
        """The state as torch's layer takes it."""
        return state if isinstance(self.recurrent, nn.LSTM) else state[0]


class CharLSTM(RecurrentLM):
    """Hochreiter & Schmidhuber 1997, with a forget gate (Gers et al. 2000)."""

    recurrence = nn.LSTM


class CharGRU(RecurrentLM):
    """Cho et al. 2014, arXiv 1406.1078; torch's form, whose reset gate acts after the recurrent product."""

    recurrence = nn.GRU


def select_rows(state: State, keep: Tensor) -> State:
    """The state (layers, B, hidden) with the rows where `keep` (B,) is 0 set to the zero state."""
    return tuple(part * keep.to(part.dtype)[None, :, None] for part in state)


def detached(state: State) -> State:
    """The state as a constant: back-propagation is truncated here."""
    return tuple(part.detach() for part in state)


def zero_state(network: RecurrentLM, rows: int, device: torch.device) -> State:
    """What `None` stands for."""
    shape = (network.recurrent.num_layers, rows, network.recurrent.hidden_size)
    parts = 2 if isinstance(network.recurrent, nn.LSTM) else 1
    return tuple(torch.zeros(shape, device=device) for _ in range(parts))
