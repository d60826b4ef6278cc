"""A pair of domains that needs no download: scikit-learn's digits, plain and blended with its photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.domains.blending import VERSION, blended, in_colour
from datamodules.domains.pairs import KINDS, PairDataModule
from datamodules.images.shared.image import Split

ENLARGED, BORDER = 3, 2  # 8 · 3 + 2 · 2 = 28 pixels
TRAIN, VAL = 64, 6  # of each class and domain; the rest test
# Both photographs are cut into upright strips, dealt out in this order: no pixel is in two splits, and all splits have
# light and dark backgrounds alike. (Sky fills the right third of one photograph; that of the other is nearly black.)
STRIPS = ("train", "test", "train", "val", "train", "test") * 2


class DigitsM(PairDataModule):
    """`data=digits_m`: 28×28 RGB; grey digits are the source, digits on photographs the target, as MNIST and MNIST-M.

    1,797 digits: of each class the first 140 train and validate, those in even places the source (64 and 6), those in
    odd places the target; the 397 others test both. Half of the photographs' strips train, a third tests.

    Args:
        cache: the folder for what was made, `paths.cache`.
        overlap: the same 1,280 digits train both domains.
        make_seed: of the crops: runs with other seeds share their data.

    Source: `sklearn.datasets.load_digits` and `load_sample_images`; the recipe: Ganin & Lempitsky 2015.
    """

    domains = ("digits", "digits on photographs")

    def __init__(
        self,
        cache: str,
        overlap: bool = False,
        make_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 128,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.cache = Path(cache).expanduser().absolute()
        self.overlap, self.make_seed = overlap, make_seed

    @property
    def note(self) -> str:
        return "a small pair for trying things out, not comparable with published figures" + (
            "; the same digits train both domains" * self.overlap
        )

    def load_splits(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels = enlarged(digits.images), digits.target.astype(np.int64)
        key = {"version": VERSION, "seed": self.make_seed, "form": [ENLARGED, BORDER, list(STRIPS)]}
        # Of every digit in every split: which of them a run uses changes nothing.
        made = cached_arrays(self.cache, "digits_m", key, lambda: self._made(images))
        splits = {}
        for name, rows in places(labels, self.overlap).items():
            domain, kind = name.split("_")
            pictures = in_colour(images[rows]) if domain == "source" else made[kind][rows]
            splits[name] = Split(pictures, labels[rows])
        return splits

    def _made(self, images: np.ndarray) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_sample_images

        strips = [np.array_split(photograph, len(STRIPS), axis=1) for photograph in load_sample_images().images]
        made = {}
        for number, kind in enumerate(KINDS):
            own = [strip for cut in strips for name, strip in zip(STRIPS, cut, strict=True) if name == kind]
            made[kind] = blended(images, range(len(images)), own, self.make_seed, number)
        return made


def enlarged(grey: np.ndarray) -> np.ndarray:
    """Digits (N, 8, 8) of 0 … 16 → uint8 (N, 1, 28, 28) of 0 … 255: each pixel three by three, a black border."""
    bright = np.round(grey * (255 / 16)).astype(np.uint8)
    large = bright.repeat(ENLARGED, 1).repeat(ENLARGED, 2)
    return np.pad(large, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))[:, None]


def places(labels: np.ndarray, overlap: bool) -> dict[str, np.ndarray]:
    """Which digits each split has, in the order of their numbers."""
    found: dict[str, list[np.ndarray]] = {f"{domain}_{kind}": [] for kind in KINDS for domain in ("source", "target")}
    for digit in range(10):
        own = np.flatnonzero(labels == digit)
        given, tested = own[: 2 * (TRAIN + VAL)], own[2 * (TRAIN + VAL) :]
        for start, domain in enumerate(("source", "target")):
            half = given[start::2]
            found[f"{domain}_train"].append(half[:TRAIN])
            found[f"{domain}_val"].append(half[TRAIN:])
            found[f"{domain}_test"].append(tested)
    splits = {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}
    if overlap:
        both = np.sort(np.concatenate([splits["source_train"], splits["target_train"]]))
        splits |= {"source_train": both, "target_train": both}
    return splits
