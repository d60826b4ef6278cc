"""Patches of five colonoscopy pictures from Kvasir-SEG: four without their polyps to train on, the fifth to test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.errors import UsageError
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.sources import damage_named
from datamodules.spec import ImageSpec

FOLDERS = ("samples/kvasir_seg", "kvasir_seg", "Kvasir-SEG")
PICTURES = 5  # the first in the order of their names
SCALE = 4  # times smaller than they come
SIZE, MARGIN = 32, 8  # of a patch, and its distance to a polyp in training, in pixels of the small picture
STEP = {"train": 2, "test": 4}  # pixels between two patches
ITEMS = {"train": 4000, "val": 500}
SPLIT_SEED = 0


class KvasirPatches(ImageDataModule):
    """`data=kvasir_patches data.held_out=0…4`: an illustration, no data set: every picture has a polyp.

    The four other pictures give 32×32 patches that keep 8 pixels from the polyp, at a quarter of the size; of them
    4,000 train and 500 validate, which overlap. The held-out one is tested on patches 4 pixels apart, which are
    anomalous where they touch the polyp. `picture` and `mask` are that picture, for the stage `map`.

    Args:
        path: the folder looked in, `paths.data`, for `images/` and `masks/` of Kvasir-SEG.
        held_out: the number of the picture that is tested on.

    Source: Jha et al., "Kvasir-SEG: A Segmented Polyp Dataset", MMM 2020. For research and education.
    """

    def __init__(self, path: str, held_out: int = 0, batch_size: int = 64, eval_batch_size: int = 250, seed: int = 0):
        super().__init__(batch_size, eval_batch_size, seed)
        if not isinstance(held_out, int) or isinstance(held_out, bool) or not 0 <= held_out < PICTURES:
            raise UsageError(f"data.held_out is {held_out!r}, but the pictures are numbered 0 to {PICTURES - 1}.")
        self.path, self.held_out = Path(path).expanduser().absolute(), held_out
        self.picture = self.mask = np.empty(0)

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(3, SIZE, SIZE, levels=256, classes=2)

    @property
    def class_names(self) -> list[str]:
        return ["no polyp", "polyp"]

    @property
    def normal_labels(self) -> list[int]:
        return [0]

    @property
    def normal_names(self) -> list[str]:
        return ["no polyp"]

    @property
    def note(self) -> str:
        return "five images in overlapping patches: an illustration, no result, whose intervals and p do not hold"

    def load_splits(self) -> dict[str, Split]:
        pictures = [read_pair(*files) for files in find_pairs(self.path)]
        self.picture, self.mask = pictures.pop(self.held_out)
        clear = [patches(picture, mask, STEP["train"], MARGIN) for picture, mask in pictures]
        images = np.concatenate([own[~touching] for own, touching, _ in clear])
        order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
        if len(images) <= ITEMS["val"]:
            raise UsageError(f"The pictures of {self.path} have {len(images)} patches clear of polyps: too few.")
        val, train = order[: ITEMS["val"]], order[ITEMS["val"] :][: ITEMS["train"]]
        tested, touching, _ = patches(self.picture, self.mask, STEP["test"], 0)
        splits = {name: Split(images[np.sort(rows)], np.zeros(len(rows), np.int64)) for name, rows in
                  (("train", train), ("val", val))}  # fmt: skip
        return {**splits, "test": Split(tested, touching.astype(np.int64))}


def patches(
    picture: np.ndarray, mask: np.ndarray, step: int, margin: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Patches (N, 3, 32, 32) of a picture (3, H, W) on a grid; whether each is within `margin` of the mask (H, W); and
    their tops and lefts. The last row and column of patches end with the picture."""
    height, width = mask.shape
    tops, lefts = (sorted({*range(0, side - SIZE + 1, step), side - SIZE}) for side in (height, width))
    places = [(top, left) for top in tops for left in lefts]
    near = [
        mask[max(0, top - margin) : top + SIZE + margin, max(0, left - margin) : left + SIZE + margin].any()
        for top, left in places
    ]
    cut = np.stack([picture[:, top : top + SIZE, left : left + SIZE] for top, left in places])
    return cut, np.array(near), places


def find_pairs(path: Path) -> list[tuple[Path, Path]]:
    """The first five pictures and their masks, in the order of their names.

    Raises:
        UsageError: there are fewer, or one has no mask.
    """
    for folder in (path / name for name in FOLDERS):
        files = sorted((folder / "images").glob("*.jpg"))[:PICTURES]
        if files:
            pairs = [(file, folder / "masks" / file.name) for file in files]
            missing = [mask.name for _, mask in pairs if not mask.is_file()]
            if len(pairs) < PICTURES or missing:
                raise UsageError(f"Kvasir-SEG in {folder} is not complete: five pictures and their masks are needed.")
            return pairs
    folders = ", ".join(f"{folder}/images/" for folder in FOLDERS)
    raise UsageError(
        f"Kvasir-SEG was not found as *.jpg in {folders} of {path}: fetch it from datasets.simula.no and set "
        "paths.data=FOLDER or ETUDES_DATA=FOLDER to where it is, or take data=digits_one_class: it needs no download."
    )


def read_pair(picture: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (3, H, W) and its mask bool (H, W), at a quarter of their size."""
    with damage_named(picture, "a picture of Kvasir-SEG"), Image.open(picture) as image, Image.open(mask) as of:
        size = image.width // SCALE, image.height // SCALE
        if of.size != image.size or min(size) < SIZE:
            raise ValueError(f"its size is {image.size}, its mask's {of.size}")
        small = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
        inside = np.asarray(of.convert("L").resize(size, Image.Resampling.BOX)) >= 128
    return np.ascontiguousarray(small.transpose(2, 0, 1)), inside
