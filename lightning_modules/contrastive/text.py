"""The text tower: a small transformer that reads a sentence from left to right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from lightning_modules.classification.network import require_least


class TextTower(nn.Module):
    """Codes (B, T) → features (B, D), those at the end of each sentence.

    Words and positions embedded; `layers` blocks of pre-norm, causally masked attention and a perceptron four times as
    wide; layer normalisation; the features at the end token, projected. What stands after the end changes nothing.

    Source: Radford et al. 2021, section 2.4; initial weights as in its code.

    Raises:
        UsageError: a size is impossible.
    """

    def __init__(self, vocabulary: int, length: int, end: int, *, width: int, layers: int, heads: int, size: int):
        super().__init__()
        require_least(1, text_width=width, text_layers=layers, text_heads=heads)
        if width % heads:
            raise UsageError(f"model.text_heads={heads} does not divide model.text_width={width}: choose another.")
        self.end = end
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, size, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        ends = (codes == self.end).int().argmax(1)
        codes = codes[:, : int(ends.max()) + 1]  # nothing is asked of what lies behind the longest
        x = self.words(codes) + self.positions[: codes.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(codes.shape[1], device=x.device, dtype=x.dtype)
        x = self.blocks(x, mask=mask, is_causal=True)
        return self.projection(self.norm(x[torch.arange(len(x), device=x.device), ends]))
