"""What images with sentences share: the choice of languages, how images are moved in training, and the loaders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.captions.batches import OneSentence
from datamodules.captions.moved import Moved
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import ImageDataModule
from datamodules.loader import ArrayLoader, Arrays


class CaptionData(ImageDataModule):
    """Splits of images with their sentences, and loaders of `CaptionBatch`es.

    Args:
        cache: the folder for decoded or painted images, `paths.cache`.
        language: a name of `choices`, which say the languages of each.
        batch_size, eval_batch_size, seed: see `ImageDataModule`.
        shift, scale, light: see `Moved`; training images alone.

    Raises:
        UsageError: there is no such choice of languages, or a number is impossible.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(
        self,
        cache: str,
        language: str,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        shift: float = 0.0,
        scale: float = 0.0,
        light: float = 0.0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        if language not in self.choices:
            near = did_you_mean(str(language), self.choices)
            raise UsageError(f"data.language is {language!r}{near}: choose {', '.join(self.choices)}.")
        self.languages = self.choices[language]
        self.cache = Path(str(cache)).expanduser().absolute()
        self.moved = Moved(shift, scale, light).checked()

    @property
    def augments(self) -> bool:
        """Do training images differ from one epoch to the next?"""
        return any(self.moved)

    def augment(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        return self.moved(images, rng)

    def _loader(self, split: str) -> ArrayLoader:
        def augmented(arrays: Arrays, *drawn: object) -> Arrays:
            return self.augment(arrays[0], *drawn), *arrays[1:]

        dealt = self.dealt(split)
        augment = augmented if split == "train" and self.augments else None
        return ArrayLoader(self.splits[split], **dealt, augment=augment, collate=OneSentence(dealt["seed"]))
