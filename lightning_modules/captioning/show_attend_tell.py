"""Show, attend and tell: a recurrent decoder that looks at the image anew before each word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec, require_captions
from lightning_modules.captioning.encoder import make_encoder
from lightning_modules.captioning.network import Captioner, Taught, Tensors
from lightning_modules.classification.network import require_least, require_share

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


class AdditiveAttention(nn.Module):
    """e_i = vᵀ tanh(W_a a_i + W_h h + b), α = softmax over the positions i (Bahdanau et al. 2015).

    With `query` features of a word, W_y of it is added inside the tanh.
    """

    def __init__(self, annotation: int, hidden: int, size: int, query: int = 0):
        super().__init__()
        self.of_annotation = nn.Linear(annotation, size)  # W_a and b
        self.of_state = nn.Linear(hidden, size, bias=False)
        self.of_word = nn.Linear(query, size, bias=False) if query else None
        self.v = nn.Linear(size, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """W_a a + b of each position (B, L, A): the same at every step."""
        return self.of_annotation(annotations)

    def forward(self, keys: Tensor, h: Tensor, word: Tensor) -> Tensor:
        """α (B, L)."""
        query = self.of_state(h)
        if self.of_word is not None:
            query = query + self.of_word(word)
        return self.v(torch.tanh(keys + query[:, None]))[..., 0].float().softmax(1)


class ShowAttendTell(Captioner):
    """Images and the words so far → the next word (Xu et al. 2015, arXiv 1502.03044, soft attention).

    Before word t: α from h_{t−1}, β = σ(w_βᵀ h_{t−1} + b_β), z = β Σ α_i a_i; the cell takes [E y_{t−1}; z]; and
    p(y_t) = softmax(L_o(E y_{t−1} + L_h h_t + L_z z)). h_0 and c_0 are tanh of a linear map each of the mean
    annotation. The GRU is torch's, whose reset gate acts after the product (Cho et al. 2014: before).

    Deviations: α may see y_{t−1} (`query_word`); the encoder is trained along; a language's start word begins.

    Args:
        spec: the images, and the vocabulary.
        cell: `lstm` or `gru`.
        hidden, embedding, attention: sizes of h, of E y, and of the vectors inside the attention.
        gate: β; false: 1.
        deep_output: false: a linear layer on h_t in place of the deep output.
        query_word: the attention also sees the word before.
        dropout: share of E y and of what the output layer sees left out in training.
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
        cell: str = "lstm",
        hidden: int = 256,
        embedding: int = 128,
        attention: int = 128,
        gate: bool = True,
        deep_output: bool = True,
        query_word: bool = False,
        dropout: float = 0.2,
        encoder: str = "cnn",
        weights: str = "imagenet",
        widths: Sequence[int] = (32, 64, 96),
        coordinates: bool = True,
        image: bool = True,
    ):
        super().__init__()
        self.spec = require_captions(spec, "Show, attend and tell")
        if cell not in CELLS:
            raise UsageError(f"model.cell is {cell!r}{did_you_mean(str(cell), CELLS)}: choose lstm or gru.")
        require_least(1, hidden=hidden, embedding=embedding, attention=attention)
        require_share(dropout=dropout)
        words = len(self.spec.vocabulary)
        self.encoder = make_encoder(self.spec, encoder, weights, widths, coordinates, image)
        size = self.encoder.size
        self.words = nn.Embedding(words, embedding)
        self.attention = AdditiveAttention(size, hidden, attention, embedding if query_word else 0)
        self.cell = CELLS[cell](embedding + size, hidden)
        self.starts = nn.ModuleList(nn.Linear(size, hidden) for _ in range(2 if cell == "lstm" else 1))  # h, c
        self.gate = nn.Linear(hidden, 1) if gate else None
        self.deep_output = deep_output
        if deep_output:
            self.of_state, self.of_context = nn.Linear(hidden, embedding), nn.Linear(size, embedding, bias=False)
        self.output = nn.Linear(embedding if deep_output else hidden, words)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.words.weight, std=0.1)

    def remember(self, annotations: Tensor) -> Tensors:
        return annotations, self.attention.keys(annotations)

    def begin(self, memory: Tensors) -> Tensors:
        mean = memory[0].mean(1)
        return tuple(torch.tanh(start(mean)) for start in self.starts)

    def step(self, memory: Tensors, state: Tensors, codes: Tensor) -> tuple[Tensor, Tensors]:
        word = self.dropout(self.words(codes))
        context, _, state = self._look_and_go_on(memory, state, word)
        return self._logits(word, state[0], context), state

    def _look_and_go_on(self, memory: Tensors, state: Tensors, word: Tensor) -> tuple[Tensor, Tensor, Tensors]:
        """E y_{t−1} (B, E) → z (B, D), α (B, L), and the state after it."""
        annotations, keys = memory
        h = state[0]
        weights = self.attention(keys, h, word)
        context = (weights.to(annotations.dtype)[:, None] @ annotations)[:, 0]
        if self.gate is not None:
            context = torch.sigmoid(self.gate(h)) * context
        found = self.cell(torch.cat([word, context.to(word.dtype)], 1), state if len(state) == 2 else h)
        return context, weights, found if isinstance(found, tuple) else (found,)

    def _logits(self, word: Tensor, h: Tensor, context: Tensor) -> Tensor:
        """Of the next word, from E y_{t−1}, h_t and z_t: of one step, or of all at once (…, V)."""
        outputs = h
        if self.deep_output:
            outputs = word + self.of_state(self.dropout(h)) + self.of_context(context)
        return self.output(self.dropout(outputs))

    def teach(self, annotations: Tensor, codes: Tensor, attention: bool = True, truth: Tensor | float = 1.0) -> Taught:
        """See `Captioner`. With `truth` below 1 each input word after the first is true with that probability, else
        drawn from the network (scheduled sampling, Bengio et al. 2015); no gradient goes through the draw."""
        memory = self.remember(annotations)
        state, steps = self.begin(memory), []
        for place in range(codes.shape[1]):
            codes_here = codes[:, place]
            if place and truth < 1:
                word, h, context, _ = steps[-1]
                drawn = torch.multinomial(self._logits(word, h, context).detach().float().softmax(1), 1)[:, 0]
                codes_here = torch.where(torch.rand(len(drawn), device=drawn.device) < truth, codes_here, drawn)
            word = self.dropout(self.words(codes_here))
            context, weights, state = self._look_and_go_on(memory, state, word)
            steps.append((word, state[0], context, weights))
        words, states, contexts, looked = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        return Taught(self._logits(words, states, contexts), looked)
