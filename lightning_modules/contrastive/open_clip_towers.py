"""A trained CLIP of the package open_clip, on this project's images: extra `[clip]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.captions.words import decode_sentence
from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec
from lightning_modules.contrastive.towers import TwoTowers

HUB = "hub:"


class OpenCLIP(TwoTowers):
    """Images (B, C, H, W) → logits over the names of the classes, by a model of open_clip: see `TwoTowers`.

    Images are scaled to the model's own size, bilinearly, and normalised by its mean and standard deviation, all of it
    differentiated: an attack's ε is of the stored image, before the scaling.

    Args:
        name: one of open_clip's models, or a JSON file of a model's sizes, as open_clip's are.
        weights: a file of them (safetensors, or what `torch.load` reads with `weights_only=True`), `hub:TAG` to
            download what open_clip calls so, or None: first weights by chance.
        quick_gelu: were they trained with the approximate GELU? Must be said of a file: OpenAI's were, and in the other
            activation they run and are wrong.
        defence, rank, prompt, prompt_size, naming: see `TwoTowers`; `prompt` pixels alone.

    Raises:
        UsageError: open_clip is not installed, there is no such model, or the weights are not its.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        name: str = "ViT-B-32",
        weights: str | None = None,
        quick_gelu: bool | None = None,
        defence: str = "none",
        rank: int = 8,
        prompt: str = "pixels",
        prompt_size: int = 4,
        naming: str = "embedding",
    ):
        if quick_gelu not in (None, True, False):
            raise UsageError(f"model.quick_gelu is {quick_gelu!r}, but it must be true or false.")
        model, open_clip = made(name, weights, quick_gelu)
        super().__init__(spec, model.text_projection.shape[1], defence, rank, prompt, prompt_size, naming)
        self.trained = weights is not None
        if self.captions.shape[0] != 3:
            raise UsageError("model=open_clip takes RGB images: choose data=digit_names, cifar10 or cifar100.")
        mean, deviation = (torch.tensor(getattr(model.visual, f"image_{what}")) for what in ("mean", "std"))
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("deviation", deviation[:, None, None], persistent=False)
        side = model.visual.image_size
        self.side = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
        self.tokenizer = open_clip.get_tokenizer(name_of(name), context_length=model.context_length)
        tower, text = model.visual, TextPart(model)
        self.finish(tower, text, model.logit_scale.exp().item() if not model.logit_scale.is_meta else 1.0, None)

    def image_features(self, images: Tensor) -> Tensor:
        inside = images.float() / (self.captions.levels - 1)
        scaled = F.interpolate(inside, self.side, mode="bilinear", antialias=True, align_corners=False)
        return self.image_tower((scaled - self.mean) / self.deviation)

    def text_features(self, tokens: Tensor) -> Tensor:
        return self.text_tower(tokens)

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        return self.tokenizer(list(sentences))

    def read(self, codes: Tensor) -> Tensor:
        return self.tokens([decode_sentence(row, self.captions) for row in codes.tolist()]).to(codes.device)


class TextPart(nn.Module):
    """The text tower of a model of open_clip, which is spread over the model itself: tokens (B, T) → (B, size)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        for name in ("transformer", "token_embedding", "ln_final", "text_projection", "positional_embedding"):
            setattr(self, name, getattr(model, name))
        self.register_buffer("attn_mask", model.attn_mask, persistent=False)
        self.pool = model.text_pool_type
        self.end = getattr(model, "text_eos_id", None)

    def forward(self, tokens: Tensor) -> Tensor:
        from open_clip.transformer import text_global_pool

        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.ln_final(self.transformer(x, attn_mask=self.attn_mask))
        return text_global_pool(x, tokens, self.pool, eos_token_id=self.end) @ self.text_projection


def made(name: str, weights: str | None, quick_gelu: bool | None) -> tuple[nn.Module, Any]:
    """open_clip's model with its weights, and the package.

    Raises:
        UsageError: see `OpenCLIP`.
    """
    if find_spec("open_clip") is None:
        raise UsageError("model=open_clip needs more packages: pip install -e '.[clip]'.")
    import open_clip

    own = name_of(name)
    if own != name:
        add_sizes(open_clip, Path(name))
    if own not in open_clip.list_models():
        raise UsageError(
            f"model.name is {name}{did_you_mean(name, open_clip.list_models())}, but open_clip has no such model: "
            "give one of open_clip.list_models(), or a JSON file."
        )
    if weights is not None and weights.startswith(HUB):
        return downloaded(open_clip, own, weights.removeprefix(HUB)), open_clip
    if weights is not None and quick_gelu is None:
        raise UsageError(
            "model.quick_gelu must be said of a file's weights: true for OpenAI's, false for those trained with the "
            "exact GELU, as most of open_clip's others."
        )
    here = torch.get_default_device()
    model = open_clip.create_model(own, None, load_weights=False, force_quick_gelu=bool(quick_gelu), device=here)
    if not hasattr(model, "text_projection"):
        raise UsageError(f"model.name={name} has a text tower of another kind: choose a plain CLIP, such as ViT-B-32.")
    if weights is not None:
        load_file(model, Path(weights), own)
    return model, open_clip


def name_of(name: str) -> str:
    """A JSON file's model is called as the file."""
    return Path(name).stem if name.endswith(".json") else name


def add_sizes(open_clip: Any, path: Path) -> None:
    """Tells open_clip of a model's sizes; raises UsageError when the file does not hold such."""
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
        if not sizes.keys() >= {"embed_dim", "vision_cfg", "text_cfg"}:
            raise ValueError
    except (OSError, ValueError, AttributeError):
        raise UsageError(
            f"model.name='{path}' holds no sizes of an open_clip model: embed_dim, vision_cfg, text_cfg."
        ) from None
    open_clip.add_model_config(path)


def downloaded(open_clip: Any, name: str, tag: str) -> nn.Module:
    """What open_clip has under this tag, which also knows its activation; raises UsageError when it cannot be had."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise UsageError(f"open_clip has no weights '{tag}' of {name}{did_you_mean(tag, tags)}: {', '.join(tags)}.")
    try:
        return open_clip.create_model(name, pretrained=tag)
    except Exception as error:  # of its several ways to the network each has its own
        raise UsageError(f"The weights '{tag}' of {name} could not be downloaded ({type(error).__name__}).") from error


def load_file(model: nn.Module, path: Path, name: str) -> None:
    """Gives the model a file's weights; nothing in it can run code.

    Raises:
        UsageError: there is no such file, or it holds no weights of this model.
    """
    if not path.is_file():
        raise UsageError(f"There is no file '{path}': give weights of {name} as model.weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as read

            weights = read(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = weights.get("state_dict", weights)
        model.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()})
    except Exception as error:  # a damaged file makes its parser raise almost anything
        raise UsageError(
            f"'{path}' holds no weights of open_clip's {name} ({type(error).__name__}): give a file of this model's "
            "weights alone, or another model.name."
        ) from error
