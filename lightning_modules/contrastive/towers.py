"""Two towers: one for images, one for text, into one space; and what defends the first against attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec
from lightning_modules.attacks import exact
from lightning_modules.contrastive.loss import similarities
from lightning_modules.contrastive.low_rank import adapt_, plain_name
from lightning_modules.contrastive.sentences import class_sentences, described

DEFENCES = ("none", "cross_entropy", "text_head", "tecoa", "lora", "prompt")
WHOLE = ("cross_entropy", "text_head", "tecoa")  # those that train all of the image tower
HEADS = ("cross_entropy", "text_head")  # those that train on a linear head instead of the text
PROMPTS = ("pixels", "tokens")
NAMINGS = ("embedding", "probabilities")
MOST = math.log(100)  # of the scale's logarithm


class TwoTowers(nn.Module):
    """Images (B, C, H, W) → logits (B, classes): scaled cosines with the embeddings of the classes' names.

    The embedding of a name is the mean over all sentences about it (`sentences`), of length 1 again. With `naming`
    `probabilities` a name's probability is the sum of its sentences', among those of all names. A subclass makes
    its towers, gives their parts to `finish`, and says what they compute: `image_features`, `text_features`, `tokens`,
    `read`.

    With a `defence` everything is frozen, dropout and running statistics too, but what that defence trains:
    `cross_entropy`, `text_head` and `tecoa` the image tower, the former two also a linear head over the names; `lora`
    a low-rank part of the image tower's matrices; `prompt` a frame of pixels, or tokens, added to every image.

    Args:
        spec: images with sentences and names of classes, or images whose classes have names.
        size: of the space that both towers map to.
        defence: one of DEFENCES.
        rank: of `lora`.
        prompt: of `prompt`: `pixels`, a frame added to the image, or `tokens`, before a vision transformer's blocks.
        prompt_size: the frame's width in pixels, or the number of tokens.
        naming: one of NAMINGS.

    Raises:
        UsageError: the classes have no names, or the defence is impossible.
    """

    def __init__(
        self, spec: Spec, size: int, defence: str, rank: int, prompt: str, prompt_size: int, naming: str = "embedding"
    ):
        super().__init__()
        if defence not in DEFENCES:
            near = did_you_mean(str(defence), DEFENCES)
            raise UsageError(f"task.module.defence is {defence}{near}: choose {', '.join(DEFENCES)}.")
        if prompt not in PROMPTS:
            raise UsageError(f"model.prompt is {prompt}{did_you_mean(str(prompt), PROMPTS)}: choose pixels or tokens.")
        if naming not in NAMINGS:
            near = did_you_mean(str(naming), NAMINGS)
            raise UsageError(f"model.naming is {naming}{near}: choose embedding or probabilities.")
        self.spec, self.captions, self.sentences = spec, described(spec), class_sentences(spec)
        self.size, self.defence, self.rank = size, defence, rank
        self.prompt_kind, self.prompt_size, self.naming = prompt, prompt_size, naming
        self.trained = False  # did it begin with the weights of a training elsewhere?
        self.head: nn.Linear | None = None
        self.prompt: nn.Parameter | None = None
        self._said: tuple[Tensor, Tensor] | None = None

    # What a subclass makes and says

    def finish(self, image_tower: nn.Module, text_tower: nn.Module, scale: float, token_width: int | None) -> None:
        """Takes the towers, and freezes all but what the defence trains.

        Args:
            scale: what the cosines are multiplied by at first.
            token_width: of the image tower's tokens; None: it has none.
        """
        self.image_tower, self.text_tower = image_tower, text_tower
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.register_load_state_dict_post_hook(lambda module, _: module.forget())
        if self.defence == "none":
            return
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        if self.defence in WHOLE:
            for parameter in self.image_tower.parameters():
                parameter.requires_grad_(True)
        if self.defence in HEADS:
            self.head = nn.Linear(self.size, len(self.captions.names), bias=False)
        if self.defence == "lora":
            adapt_(self.image_tower, self.rank)
        if self.defence == "prompt":
            self.prompt = nn.Parameter(self._first_prompt(token_width))
        self.train()

    def image_features(self, images: Tensor) -> Tensor:
        """Intensities 0 … levels − 1 (B, C, H, W) → (B, size), not yet of length 1."""
        raise NotImplementedError

    def text_features(self, tokens: Tensor) -> Tensor:
        """What `tokens` or `read` gave (B, T) → (B, size)."""
        raise NotImplementedError

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """Sentences as the text tower reads them (B, T), on the CPU."""
        raise NotImplementedError

    def read(self, codes: Tensor) -> Tensor:
        """The same of sentences in the codes of `captions` (B, T)."""
        raise NotImplementedError

    # The shared space

    @property
    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=MOST).exp()

    def image(self, images: Tensor) -> Tensor:
        """Unit vectors (B, size), the defence's prompt in front."""
        if self.prompt is not None and self.prompt_kind == "pixels":
            images = images.float() + (self.captions.levels - 1) * self.frame()
        return F.normalize(self.image_features(images).float(), dim=1)

    def text(self, tokens: Tensor) -> Tensor:
        """Unit vectors (B, size)."""
        return F.normalize(self.text_features(tokens).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.image(images))

    def logits(self, image: Tensor) -> Tensor:
        """Unit vectors of images (B, size) → the logits of the names (B, classes)."""
        if self.naming == "embedding":
            return similarities(image, self.names, self.scale)
        each = similarities(image, self.told, self.scale).split([len(own) for own in self.sentences], 1)
        return torch.stack([logits.logsumexp(1) for logits in each], 1)

    def training_logits(self, images: Tensor) -> Tensor:
        """What a defence is trained on (B, classes): the head's logits where it has one, else `forward`."""
        if self.head is None:
            return self(images)
        return similarities(self.image(images), self.head.weight, self.scale)

    @property
    def names(self) -> Tensor:
        """The embedding of each class's name (classes, size), without gradients; computed once for the same weights."""
        return self._read()[0]

    @property
    def told(self) -> Tensor:
        """The embeddings of all classes' sentences, one class after another (sentences, size); as `names`."""
        return self._read()[1]

    def _read(self) -> tuple[Tensor, Tensor]:
        device = self.log_scale.device
        if self._said is None or self._said[0].device != device:
            with exact(), torch.no_grad():
                told = [self.text(self.tokens(own).to(device)) for own in self.sentences]
                means = torch.stack([own.mean(0) for own in told])
                self._said = F.normalize(means, dim=1), torch.cat(told)
        return self._said

    def forget(self) -> None:
        """The weights are others now: so are the names."""
        self._said = None

    def train(self, mode: bool = True) -> TwoTowers:
        """A frozen tower stays in evaluation mode; a text tower that is trained has other names than before."""
        super().train(mode)
        if self.defence == "none":
            self.forget()
            return self
        self.text_tower.eval()
        if self.defence not in WHOLE:
            self.image_tower.eval()
        return self

    # The defences

    def frame(self) -> Tensor:
        """The frame of pixels as an image (C, H, W), 0 inside."""
        _, height, width = self.captions.shape
        whole = torch.zeros(self.captions.shape, device=self.prompt.device)
        whole[:, border(height, width, self.prompt_size)] = self.prompt
        return whole

    def _first_prompt(self, token_width: int | None) -> Tensor:
        channels, height, width = self.captions.shape
        if self.prompt_kind == "tokens":
            if token_width is None:
                raise UsageError("model.prompt=tokens needs a vision transformer: choose model.image=vit, or pixels.")
            if not 1 <= self.prompt_size <= 1000:
                raise UsageError(f"model.prompt_size is {self.prompt_size}, but it must be from 1 to 1000 tokens.")
            return 0.02 * torch.randn(self.prompt_size, token_width)
        if not 1 <= self.prompt_size <= min(height, width) // 2:
            raise UsageError(
                f"model.prompt_size is {self.prompt_size}, but a frame must be from 1 to {min(height, width) // 2} "
                f"pixels wide in images of {height}×{width}."
            )
        return torch.zeros(channels, int(border(height, width, self.prompt_size).sum()))

    def start_from(self, weights: dict[str, Any]) -> None:
        """Takes the weights of a network without a defence; the defence's own stay as they begin.

        Raises:
            RuntimeError: they are another network's.
        """
        own = self.state_dict()
        shared = {name for name in own if not is_new(name)}
        if other := weights.keys() ^ {plain_name(name) for name in shared}:
            raise RuntimeError(f"Not in both: {min(other)}")
        self.load_state_dict(own | {name: weights[plain_name(name)] for name in shared})

    def begin_head(self) -> None:
        """The head of `text_head` begins as the names, which the weights of now give."""
        if self.defence == "text_head":
            with torch.no_grad():
                self.head.weight.copy_(self.names)


def is_new(name: str) -> bool:
    """Is it a weight that a defence adds?"""
    return name in ("head.weight", "prompt") or ("parametrizations." in name and not name.endswith(".original"))


def border(height: int, width: int, size: int) -> Tensor:
    """Which pixels (height, width) lie in the outer frame."""
    found = torch.ones(height, width, dtype=torch.bool)
    found[size : height - size, size : width - size] = False
    return found
