"""The embedded digits with a planted mark of one class: what a figure owes to a source has a known answer here."""

from __future__ import annotations

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.images.digits import Digits
from datamodules.images.shared.image import Split
from datamodules.images.shared.regions import check_region, keep_region
from datamodules.spec import ImageSpec

MARKS = ("corner", "centre", "none")
SCALE, SIDE = 4, 3  # every pixel becomes 4×4; the mark is 3×3 of the new ones
LEVELS = 17


class DigitsMarked(Digits):
    """`data=digits_marked`: digits below 5 against the others, 32×32, and a bright square on all of the others.

    Args:
        mark: where it stands: `corner` (top left), `centre`, or `none`.
        shuffled: labels in random order instead, and no mark follows them: nothing can be learned.
        region: of the images what is left: see `regions.py`.
        others: see `Digits`.
    """

    def __init__(self, mark: str = "corner", shuffled: bool = False, region: str = "whole", **others: object):
        super().__init__(**others)
        if mark not in MARKS:
            raise UsageError(f"data.mark is {mark!r}{did_you_mean(str(mark), MARKS)}: choose {', '.join(MARKS)}.")
        check_region(region)
        self.mark, self.shuffled, self.region = mark, shuffled, region

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=1, height=8 * SCALE, width=8 * SCALE, levels=LEVELS, classes=2)

    @property
    def class_names(self) -> list[str]:
        return ["0 to 4", "5 to 9"]

    def load_splits(self) -> dict[str, Split]:
        return {name: self._marked(split, place) for place, (name, split) in enumerate(super().load_splits().items())}

    def _marked(self, split: Split, place: int) -> Split:
        images = np.repeat(np.repeat(split.images, SCALE, 2), SCALE, 3)
        labels = (split.labels >= 5).astype(np.int64)
        if self.shuffled:
            return Split(keep_region(images, self.region, LEVELS), np.random.default_rng(place).permutation(labels))
        if self.mark != "none":
            first = 0 if self.mark == "corner" else images.shape[2] // 2 - 1
            marked = images[labels == 1]
            marked[:, :, first : first + SIDE, first : first + SIDE] = LEVELS - 1
            images[labels == 1] = marked
        return Split(keep_region(images, self.region, LEVELS), labels)
