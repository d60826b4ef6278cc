"""The 1,797 handwritten digits that ship with scikit-learn: 8×8, one channel, 17 intensity levels."""

from __future__ import annotations

import numpy as np

from datamodules.images.shared.image import ImageDataModule, Split, cut_validation, divide_anew
from datamodules.spec import ImageSpec

TEST_ITEMS = 360
SPLIT_SEED = 0


class Digits(ImageDataModule):
    """`data=digits`: needs no download. 360 images test, `val_items` validate, the rest train.

    The data set has no published split; this one is a permutation from a fixed seed (0), so that every
    run is tested on the same 360 images.

    Args:
        test_share: test on this share of all images, drawn anew; None: on the 360.

    Source: UCI Optical Recognition of Handwritten Digits, as `sklearn.datasets.load_digits`.
    """

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 128,
        val_items: int = 144,
        test_share: float | None = None,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.val_items, self.test_share = val_items, test_share

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=1, height=8, width=8, levels=17, classes=10)

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def load_splits(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = digits.images.astype(np.uint8)[:, None]
        labels = digits.target.astype(np.int64)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
        test, rest = order[:TEST_ITEMS], order[TEST_ITEMS:]
        published = Split(images[rest], labels[rest]), Split(images[test], labels[test])
        given, tested = divide_anew(*published, self.test_share, SPLIT_SEED)
        train, val = cut_validation(given, self.val_items, SPLIT_SEED)
        return {"train": train, "val": val, "test": tested}
