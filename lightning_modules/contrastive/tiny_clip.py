"""The small two-tower network, trained here from its first weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.captions.words import encode_sentences
from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import ImageSpec, Spec
from lightning_modules.classification.network import require_least
from lightning_modules.classification.networks.cnn import CNN
from lightning_modules.classification.networks.vit import ViT
from lightning_modules.contrastive.sentences import LANGUAGE, described
from lightning_modules.contrastive.text import TextTower
from lightning_modules.contrastive.towers import TwoTowers

SCALE = 1 / 0.07  # that the cosines are multiplied by at first (Radford et al. 2021, section 2.5)
TOWERS = ("cnn", "vit")


class TinyCLIP(TwoTowers):
    """Images (B, C, H, W) → logits over the names of the classes; towers and the rest: see `TwoTowers`.

    The image tower is classification's CNN or vision transformer, its last linear layer being the projection; the CNN
    also sees two channels with each pixel's place, without which a mean over the map could hardly tell left from right.

    Args:
        spec: see `TwoTowers`.
        image: `cnn` or `vit`.
        size: of the shared space.
        filters, depth: of the CNN. patch, width, blocks, heads, mlp: of the vision transformer.
        text_width, text_layers, text_heads: of the text tower.
        defence, rank, prompt, prompt_size, naming: see `TwoTowers`.

    Raises:
        UsageError: a size is impossible, or the classes have no names.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        image: str = "cnn",
        size: int = 64,
        filters: int = 24,
        depth: int = 5,
        patch: int = 4,
        width: int = 64,
        blocks: int = 4,
        heads: int = 4,
        mlp: int = 4,
        text_width: int = 128,
        text_layers: int = 4,
        text_heads: int = 4,
        defence: str = "none",
        rank: int = 2,
        prompt: str = "pixels",
        prompt_size: int = 4,
        naming: str = "embedding",
    ):
        super().__init__(spec, size, defence, rank, prompt, prompt_size, naming)
        if image not in TOWERS:
            raise UsageError(f"model.image is {image}{did_you_mean(str(image), TOWERS)}: choose cnn or vit.")
        require_least(2, size=size)
        seen = described(spec)
        channels, high, wide = seen.shape
        self.places = image == "cnn"
        inner = ImageSpec(channels + 2 * self.places, high, wide, seen.levels, classes=size)
        if image == "cnn":
            tower: nn.Module = CNN(inner, filters=filters, depth=depth, dropout=0.0)
        else:
            tower = ViT(inner, patch=patch, width=width, depth=blocks, heads=heads, mlp=mlp)
        text = {"width": text_width, "layers": text_layers, "heads": text_heads, "size": size}
        words = TextTower(len(seen.vocabulary), seen.length, seen.end, **text)
        self.finish(tower, words, SCALE, width if image == "vit" else None)

    def image_features(self, images: Tensor) -> Tensor:
        if self.places:
            images = with_places(images.float(), self.captions.levels - 1)
        if self.prompt is not None and self.prompt_kind == "tokens":
            return self._prompted(images)
        if isinstance(self.image_tower, CNN):
            return self.image_tower.head(self.image_tower.maps(images)[-1].amax((2, 3)))
        return self.image_tower(images)

    def _prompted(self, images: Tensor) -> Tensor:
        """The vision transformer with the prompt's tokens after the class token."""
        vit, x = self.image_tower, self.image_tower.embed(images)
        x = torch.cat([x[:, :1], self.prompt.expand(len(x), -1, -1), x[:, 1:]], 1)
        for block in vit.blocks:
            x = block(x)
        return vit.head(vit.norm(x[:, 0]))

    def text_features(self, tokens: Tensor) -> Tensor:
        return self.text_tower(tokens)

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        return torch.from_numpy(encode_sentences(sentences, self.captions, LANGUAGE)[0])

    def read(self, codes: Tensor) -> Tensor:
        return codes


def with_places(images: Tensor, most: int) -> Tensor:
    """Two more channels: each pixel's place down and across, from 0 to `most`."""
    batch, _, height, width = images.shape
    down = torch.linspace(0, most, height, device=images.device)[:, None].expand(batch, 1, height, width)
    across = torch.linspace(0, most, width, device=images.device).expand(batch, 1, height, width)
    return torch.cat([images, down, across], 1)
