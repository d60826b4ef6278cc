"""Scenes of one to three coloured digits on photographs, with sentences about them in two languages; no download."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.captions.batches import CaptionSplit, captioned
from datamodules.captions.data import CaptionData
from datamodules.captions.facts import MOST, PAIRS, CaptionLayout, fact_of_row, held_out
from datamodules.captions.words import GRAMMARS, grammar_vocabulary, longest_sentence
from datamodules.loader import ArrayLoader
from datamodules.scenes.pixels import paint
from datamodules.scenes.records import SPLITS, Scenes, make_scenes
from datamodules.scenes.settings import MOST_ITEMS, UPRIGHT, VERSION, check, is_whole, scene_settings
from datamodules.spec import CaptionSpec

log = logging.getLogger(__name__)


class DigitCaptions(CaptionData):
    """`data=digit_captions`: each image with the sentences that are true of it, five in each language.

    Ten of the 60 pairs of colour and digit are never trained on; in every scene of the split `unseen` there is one of
    them, in the others none. Splits share no glyph and no part of a photograph (`unseen` has those of `test`).
    `train_dataloader` gives `CaptionBatch`es whose sentence is drawn as a function of (seed, epoch, item); validation
    and tests always the same one. `test_dataloader` gives two loaders, the second named `unseen`.

    Args:
        cache: the folder for the painted images, `paths.cache`.
        side: of the images, pixels: a multiple of 16.
        objects: least and most digits of a scene, 1 to 3, each number as likely.
        glyph_size: least and most side of a digit's square, shares of the image's side.
        max_angle: degrees that digits are turned by at most, both ways.
        stretch: a digit's height over its width, in multiples of the usual.
        gap: between digits, in 128ths of the image's side.
        train_items, val_items, test_items, unseen_items: images of each split. Fewer are the first of more.
        scene_seed: of the scenes, not of the training order: runs with other seeds share their data.
        split_seed: of the division of glyphs between splits.
        language: of the sentences: en or fa; both: each sentence of either is as likely.
        shift, scale, light: of training images, see `Moved`: up to 3 of 64 pixels and 0.1 sentences stay true.

    Raises:
        UsageError: a choice is impossible, or digits of these sizes find no room.
    """

    choices: ClassVar = {"en": ("en",), "fa": ("fa",), "both": ("en", "fa")}

    def __init__(
        self,
        cache: str,
        side: int = 64,
        objects: Sequence[int] = (1, 3),
        glyph_size: Sequence[float] = (0.16, 0.36),
        max_angle: float = 30,
        stretch: float = 1,
        gap: float = 2,
        train_items: int = 8000,
        val_items: int = 500,
        test_items: int = 1000,
        unseen_items: int = 500,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        scene_seed: int = 0,
        split_seed: int = 0,
        seed: int = 0,
        language: str = "en",
        shift: float = 0.0,
        scale: float = 0.0,
        light: float = 0.0,
    ):
        super().__init__(cache, language, batch_size, eval_batch_size, seed, shift, scale, light)
        self.items = dict(zip(SPLITS, (train_items, val_items, test_items, unseen_items), strict=True))
        for name, items in self.items.items():
            check(f"{name}_items", items, is_whole(items, 1, MOST_ITEMS), f"a whole number from 1 to {MOST_ITEMS}")
        self.settings = scene_settings(
            side, objects, glyph_size, max_angle, stretch, gap, scene_seed, split_seed, most_objects=MOST
        )
        upright = f"a number of degrees from 0 to {UPRIGHT}, beyond which a 6 looks like a 9"
        check("max_angle", max_angle, max_angle <= UPRIGHT, upright)
        self.side = side
        self.scenes: dict[str, Scenes] = {}  # of each split, what its images show

    @property
    def spec(self) -> CaptionSpec:
        return CaptionSpec(
            channels=3,
            height=self.side,
            width=self.side,
            levels=256,
            vocabulary=grammar_vocabulary(self.languages),
            languages=self.languages,
            length=longest_sentence(self.languages),
            names=tuple(self.class_names) if self.settings.objects[0] == 1 else (),
        )

    @property
    def class_names(self) -> list[str]:
        """Of single digits: “a red zero”, … of all 60 pairs; number 10 · colour + digit."""
        return [GRAMMARS["en"].digit(*pair) for pair in PAIRS]

    @property
    def held_out(self) -> list[int]:
        """The numbers of the classes that are never trained on."""
        return [number for number, pair in enumerate(PAIRS) if held_out(*pair)]

    @property
    def note(self) -> str:
        return (
            "drawn scenes of handwritten digits on two photographs, made for this project; val and test have smaller "
            "parts of the photographs than train, and so smoother ones"
        )

    def references(self, split: str) -> dict[str, list[list[str]]]:
        """By language, all sentences that are true of each image of a split."""
        facts = [fact_of_row(row) for row in self.splits[split].facts]
        return {language: [GRAMMARS[language].sentences(fact) for fact in facts] for language in self.languages}

    @property
    def language_words(self) -> dict[str, set[str]]:
        """The words of each language."""
        return {language: GRAMMARS[language].words for language in self.languages}

    def load_splits(self) -> dict[str, CaptionSplit]:
        splits = {}
        for split, items in self.items.items():
            key = {"version": VERSION, "split": split, "items": items, "side": self.side, **asdict(self.settings)}
            arrays = cached_arrays(self.cache, "digit_captions", key, lambda name=split: self._make(name))
            self.scenes[split] = Scenes(*(arrays[name] for name in Scenes._fields))
            splits[split] = captioned(arrays["images"], self.scenes[split], self.spec)
        return splits

    def _make(self, split: str) -> dict[str, np.ndarray]:
        """`images`, and the arrays of `Scenes` by name."""
        log.info("Drawing %d scenes of %d×%d for %s.", self.items[split], self.side, self.side, split)
        scenes = make_scenes(self.settings, CaptionLayout(), split, 0, self.items[split])
        return {"images": paint(scenes, self.side), **scenes._asdict()}

    def test_dataloader(self) -> dict[str, ArrayLoader]:
        """Of scenes as trained on, and of those with a pair that is not."""
        return {"": self._loader("test"), "unseen": self._loader("unseen")}
