"""The vision transformer: images as sequences of patches.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16×16 Words", arXiv 2010.11929. Letters: B images, N patches, D
width, L blocks, k heads.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.classification.network import Classifier, Shown, require_least, require_share
from lightning_modules.classification.networks.attention import attention_section, positions_section
from reporting.report import Section


class ViT(Classifier):
    """Images (B, C, H, W) → logits (B, classes), from the class token alone.

    Patches are embedded by one linear map, a class token is put before them and learned positions are added (equation
    1); `depth` blocks; layer normalisation (equation 4) and one linear layer. Images of another size than the spec's
    are read with positions interpolated between the learned ones (section 3.2, "Fine-tuning and higher resolution").
    Parameters: (P²C + 1)D for the patches, (N + 2)D for token and positions, (4 + 2m)D² + (9 + m)D for a block whose
    `mlp` is m (the paper: 4), 2D + (D + 1)·classes at the end. The paper's ViT-Base: patch 16, width 768, depth 12,
    heads 12. From scratch on small images: patch 2 for 8×8, 4 for 32×32.

    Args:
        spec: the images and their classes.
        patch: pixels on the side of a patch, P; it must divide both sides of the images.
        width: of every token, D.
        depth: blocks, L.
        heads: of each attention, k, which must divide `width`.
        mlp: hidden width of a block's perceptron, in multiples of `width`.
        dropout: after every linear layer but queries, keys and values, and after the positions (appendix B.1).

    Raises:
        UsageError: the data has no classes, or a size is impossible.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__(spec, "The vision transformer")
        require_least(1, patch=patch, width=width, depth=depth, heads=heads, mlp=mlp)
        require_share(dropout=dropout)
        if width % heads:
            raise UsageError(f"model.heads={heads} does not divide model.width={width}: choose a number that does.")
        self.patch, self.sizes = patch, f"sides that are multiples of {patch}"
        if not self.takes(spec.height, spec.width):
            side = gcd(spec.height, spec.width)
            fits = ", ".join(str(size) for size in range(1, side + 1) if side % size == 0)
            raise UsageError(
                f"model.patch={patch} does not divide images of {spec.height}×{spec.width}: choose one of {fits}."
            )
        self.grid = spec.height // patch, spec.width // patch
        self.patches = nn.Linear(spec.channels * patch**2, width)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(0.02 * torch.randn(1 + self.grid[0] * self.grid[1], width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, spec.classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as in the authors' code, google-research/vision_transformer
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def takes(self, height: int, width: int) -> bool:
        return min(height, width) > 0 and height % self.patch == 0 and width % self.patch == 0

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → the first block's input (B, 1 + N, D), the class token first: equation 1."""
        x = 2 * self.scaled(images) - 1
        size, (rows, columns) = self.patch, (side // self.patch for side in x.shape[2:])
        x = x.unflatten(3, (columns, size)).unflatten(2, (rows, size))  # (B, C, rows, P, columns, P)
        tokens = self.patches(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        tokens = torch.cat([self.class_token.expand(len(tokens), 1, -1), tokens], 1)
        return self.dropout(tokens + self.positions_of(rows, columns))

    def positions_of(self, rows: int, columns: int) -> Tensor:
        """Positions (1 + rows·columns, D) for a grid of patches, those learned for another grid interpolated."""
        if (rows, columns) == self.grid:
            return self.positions
        learned = self.positions[1:].T.unflatten(1, self.grid)[None]  # (1, D, rows, columns)
        between = F.interpolate(learned, (rows, columns), mode="bilinear")
        return torch.cat([self.positions[:1], between[0].flatten(1).T])

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))

    def map_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The patches' tokens (B, D, rows, columns) that enter the last block, and the logits: what Grad-CAM looks at.

        Those that leave it no longer count: the class token alone is read.
        """
        x = self.embed(images)
        for block in self.blocks[:-1]:
            x = block(x)
        grid = tuple(side // self.patch for side in images.shape[2:])
        patches = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        x = torch.cat([x[:, :1], patches.flatten(2).transpose(1, 2)], 1)
        return patches, self.head(self.norm(self.blocks[-1](x)[:, 0]))

    def attention(self, images: Tensor) -> Tensor:
        """How much each token takes from each in every block and head: (L, B, k, 1 + N, 1 + N), rows sum to 1."""
        x, found = self.embed(images), []
        for block in self.blocks:
            found.append(block.attention.weights(block.attention_norm(x)))
            x = block(x)
        return torch.stack(found)

    def sections(self, shown: Shown) -> list[Section]:
        """Where the class token looks, and which positions are alike."""
        device = self.positions.device
        with torch.no_grad():
            weights = self.eval().attention(torch.from_numpy(shown.images).to(device)).float().cpu().numpy()
        grid = tuple(side // self.patch for side in shown.images.shape[2:])
        positions = self.positions[1:].detach().float().cpu().numpy()
        return [
            attention_section(weights, grid, shown, self.spec.levels),
            positions_section(positions, self.grid, shown.folder),
        ]


class Block(nn.Module):
    """Attention between tokens, then a perceptron on each: (B, 1 + N, D) → the same; equations 2 and 3.

    Normalisation stands before each of them (pre-norm), and each is added to its own input.
    """

    def __init__(self, width: int, heads: int, mlp: int, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Attention(nn.Module):
    """Multi-head self-attention (appendix A, equations 5 to 8): (B, tokens, D) → the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each (B, k, tokens, D/k)."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.queries_keys_values(x)
        if queries.is_cpu and queries.requires_grad:
            # The same, faster: the backward pass of torch's CPU kernel is slow, above all in bf16.
            mixed = shares(queries, keys) @ values
        else:
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """What `scaled_dot_product_attention` keeps to itself: (B, k, tokens, tokens)."""
        queries, keys, _ = self.queries_keys_values(x)
        return shares(queries, keys)


def shares(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each token takes from each, A of equation 6: two (…, tokens, d) → (…, tokens, tokens)."""
    return (queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5).softmax(-1)
