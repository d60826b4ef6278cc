"""Scenes of one to six coloured digits on photographs, with exact masks and turned boxes; no download."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.loading import SceneDataModule
from datamodules.scenes.pixels import paint_and_tell
from datamodules.scenes.records import COLOURS, Scenes, make_scenes
from datamodules.scenes.rectangles import canonical
from datamodules.scenes.settings import MOST_ITEMS, UPRIGHT, VERSION, check, is_whole, scene_settings
from datamodules.spec import SceneSpec

log = logging.getLogger(__name__)

MOST = 12  # digits of a scene
DIGITS = tuple("0123456789")
MERGED = ("0", "1", "2", "3", "4", "5", "6 or 9", "7", "8")


class AnyDigits:
    """Scenes of any digits in any colours, anywhere."""

    def pairs(self, count: int, split: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        digits = rng.integers(10, size=count)
        return rng.integers(len(COLOURS), size=count), digits

    def allows(self, count: int, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.ones(len(x), bool)


class DigitScenes(SceneDataModule):
    """`data=digit_scenes`: digits on photographs, each with its pixels and the tight turned rectangle of its ink.

    Splits share no glyph and no part of a photograph. Boxes of a scene never overlap; full scenes have smaller digits.

    Args:
        cache: the folder for the painted images, `paths.cache`.
        side: of the images, pixels: a multiple of 16.
        objects: least and most digits of a scene, each number as likely.
        glyph_size: least and most side of a digit's square, shares of the image's side.
        max_angle: degrees that digits are turned by at most, both ways.
        stretch: a digit's height over its width, in multiples of the usual.
        gap: between digits, in 128ths of the image's side.
        background: there is a class 0 of what is no digit, and masks; without it digit d is class d, without masks.
        merge_69: 6 and 9 are one class, the last but two.
        train_items, val_items, test_items: images of each split. Fewer are the first of more.
        scene_seed: of the scenes, not of the training order: runs with other seeds share their data.
        split_seed: of the division of glyphs between splits.

    Raises:
        UsageError: a choice is impossible, or digits of these sizes find no room.
    """

    def __init__(
        self,
        cache: str,
        side: int = 128,
        objects: Sequence[int] = (1, 6),
        glyph_size: Sequence[float] = (0.16, 0.36),
        max_angle: float = 75,
        stretch: float = 1,
        gap: float = 2,
        background: bool = True,
        merge_69: bool = False,
        train_items: int = 6000,
        val_items: int = 500,
        test_items: int = 1000,
        batch_size: int = 16,
        eval_batch_size: int = 50,
        scene_seed: int = 0,
        split_seed: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.items = {"train": train_items, "val": val_items, "test": test_items}
        for name, items in self.items.items():
            check(f"{name}_items", items, is_whole(items, 1, MOST_ITEMS), f"a whole number from 1 to {MOST_ITEMS}")
        self.settings = scene_settings(
            side, objects, glyph_size, max_angle, stretch, gap, scene_seed, split_seed, most_objects=MOST
        )
        if max_angle > UPRIGHT and not merge_69:
            raise UsageError(
                f"data.max_angle is {max_angle!r}, but beyond {UPRIGHT} degrees a 6 looks like a 9: choose less, or "
                "make them one class with data.merge_69=true."
            )
        self.cache, self.side = Path(str(cache)).expanduser().absolute(), side
        self.background, self.merge_69 = background, merge_69
        self.scenes: dict[str, Scenes] = {}  # of each split, what its images show

    @property
    def spec(self) -> SceneSpec:
        names = ("background",) * self.background + (MERGED if self.merge_69 else DIGITS)
        return SceneSpec(
            3, self.side, self.side, 256, len(names), names, boxes=self.settings.objects[1], background=self.background
        )

    @property
    def note(self) -> str:
        return (
            "drawn scenes of handwritten digits on two photographs, made for this project; val and test have smaller "
            "parts of the photographs than train, and so smoother ones"
        )

    def load_splits(self) -> dict[str, SceneSplit]:
        return {split: self._split(split, items) for split, items in self.items.items()}

    def _split(self, split: str, items: int) -> SceneSplit:
        key = {"version": VERSION, "split": split, "items": items, "side": self.side, **asdict(self.settings)}
        arrays = cached_arrays(self.cache, "digit_scenes", key, lambda: self._make(split))
        scenes = self.scenes[split] = Scenes(*(arrays[name] for name in Scenes._fields))
        there = scenes.there()
        boxes = canonical(scenes.rectangles() * np.array([self.side] * 4 + [1]))
        classes = self.class_of(scenes.digit)
        masks = None
        if self.background:
            known = np.concatenate([np.zeros((items, 1), np.uint8), classes.astype(np.uint8)], 1)
            masks = np.empty(arrays["instances"].shape, np.uint8)
            for row, instance in enumerate(arrays["instances"]):
                masks[row] = known[row][instance]
        return SceneSplit(
            arrays["images"],
            masks,
            np.where(there[..., None], boxes, 0).astype(np.float32),
            np.where(there, classes, -1),
            np.zeros(there.shape, bool),
            np.asarray(scenes.count),
        )

    def class_of(self, digits: np.ndarray) -> np.ndarray:
        """The number of each digit's class."""
        if self.merge_69:
            digits = np.where(digits == 9, 6, digits)
        return digits + self.background

    def _make(self, split: str) -> dict[str, np.ndarray]:
        """`images`, `instances`, and the arrays of `Scenes` by name."""
        log.info("Drawing %d scenes of %d×%d for %s.", self.items[split], self.side, self.side, split)
        scenes = make_scenes(self.settings, AnyDigits(), split, 0, self.items[split])
        images, instances = paint_and_tell(scenes, self.side)
        return {"images": images, "instances": instances, **scenes._asdict()}
