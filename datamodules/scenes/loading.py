"""What data of scenes shares: splits with masks or boxes, through the one loader, moved together in training."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from datamodules.images.shared.image import ImageDataModule
from datamodules.loader import ArrayLoader, Arrays
from datamodules.scenes.augment import SceneAugment
from datamodules.scenes.batches import AsScenes, SceneSplit
from datamodules.spec import SceneSpec


class SceneDataModule(ImageDataModule):
    """Splits `train`, `val` and `test` of `SceneSplit`s; its loaders give `SceneBatch`es.

    `scene_augment` is what moves a training batch, None for nothing. Others: see `ImageDataModule`.
    """

    splits: dict[str, SceneSplit]
    scene_augment: SceneAugment | None = None

    @property
    @abstractmethod
    def spec(self) -> SceneSpec:
        """What the scenes are."""

    @property
    def class_names(self) -> list[str]:
        return list(self.spec.names)

    def _loader(self, split: str) -> ArrayLoader:
        training, held = split == "train", self.splits[split].held
        names = tuple(held)

        def augment(arrays: Arrays, *drawn: object) -> Arrays:
            batch = SceneSplit(**dict(zip(names, arrays, strict=True)))
            return tuple(self.scene_augment(batch, *drawn).held.values())

        return ArrayLoader(
            tuple(held.values()),
            **self.dealt(split),
            least=2 if training and self.batch_size > 1 else 1,  # batch norms have no variance over one image
            augment=augment if training and self.scene_augment else None,
            collate=AsScenes(names),
        )

    def pixels_of(self, split: str) -> np.ndarray:
        """How many pixels of each class every mask of a split has, those of `ignore` left out: int64 (N, classes)."""
        masks = self.splits[split].masks
        return np.stack([np.bincount(mask.ravel(), minlength=256)[: self.spec.classes] for mask in masks])
