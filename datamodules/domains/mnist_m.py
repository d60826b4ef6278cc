"""MNIST and MNIST-M, made here: MNIST's digits blended with crops of BSDS500's photographs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.domains.blending import VERSION, blended, in_colour
from datamodules.domains.pairs import KINDS, PairDataModule
from datamodules.errors import UsageError
from datamodules.images.mnist import CLASS_NAMES, FOLDERS, HUB_NAME, SHAPE, idx_source
from datamodules.images.shared.image import Split
from datamodules.sources import damage_named, hashes, hub_source, read_source

TRAIN, VAL = 55_000, 2_500  # the first digits train, the 5,000 others validate, half of them each domain
SOURCE_TRAIN = 30_000  # of those that train, where the domains share none
PHOTOGRAPHS = {"train": 160, "val": 20, "test": 20}
SPLIT_SEED = 0  # of the division of the photographs
FORMS = ("bsds500", "BSDS500/data", "BSR/BSDS500/data", "BSDS500", "bsds500/data")
TITLE = "BSDS500"


class MNISTM(PairDataModule):
    """`data=mnist_m`: MNIST is the source, MNIST-M the target; the 10,000 published test digits test both.

    By default no digit is in both domains' training, and no photograph in two splits: digits 0–29,999 of MNIST's
    training images are the source, 30,000–54,999 the target, 2,500 each validate; of BSDS500's 200 training
    photographs 160, 20 and 20 are divided before they are cropped. This is not Ganin's file, whose photographs are
    those of training and test alike.

    Args:
        path: the folder looked in, `paths.data`: for MNIST as `data=mnist`, and for the photographs in `bsds500`.
        cache: the folder for what was made, `paths.cache`.
        overlap: the literature's way: the same 55,000 digits train both domains.
        split_photographs: false: all photographs in every split, as in the literature.
        make_seed: of the crops: runs with other seeds share their data.

    Raises:
        UsageError: digits or photographs are not there, or damaged.

    Source: Ganin & Lempitsky 2015, arXiv 1409.7495; the photographs: Arbelaez, Maire, Fowlkes, Malik 2011.
    """

    domains = ("MNIST", "MNIST-M")

    def __init__(
        self,
        path: str,
        cache: str,
        overlap: bool = False,
        split_photographs: bool = True,
        make_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        self.overlap, self.split_photographs, self.make_seed = overlap, split_photographs, make_seed

    @property
    def note(self) -> str:
        shared = ["digits train both domains"] * self.overlap + ["photographs are in all splits"] * (
            not self.split_photographs
        )
        how = f"the same {' and the same '.join(shared)}" if shared else "no digit and no photograph is in two splits"
        return f"MNIST-M made here ({how}), not Ganin's file"

    def load_splits(self) -> dict[str, Split]:
        looked_for = f"train-images-idx3-ubyte[.gz] in {', '.join(f'{name}/' for name in FOLDERS)} of {self.path}"
        digits = idx_source(self.path) or hub_source(
            HUB_NAME, "MNIST", looked_for, SHAPE, CLASS_NAMES, instead="digits_m"
        )
        photographs = find_photographs(self.path)
        key = {
            "digits": digits.key,
            "photographs": hashes(photographs),
            "version": VERSION,
            "seed": self.make_seed,
            "overlap": self.overlap,
            "split_photographs": self.split_photographs,
        }
        grey = cached_arrays(self.cache, "mnist", digits.key, lambda: read_source(digits, "MNIST", SHAPE, 10))
        places = self._places()
        made = cached_arrays(self.cache, "mnist_m", key, lambda: self._made(grey, places, photographs))
        splits = {}
        for kind, (source, target) in places.items():
            images, labels = (grey[f"{'test' if kind == 'test' else 'train'}_{name}"] for name in ("images", "labels"))
            splits[f"source_{kind}"] = Split(in_colour(images[source]), labels[source])
            splits[f"target_{kind}"] = Split(made[f"{kind}_images"], labels[target])
        return splits

    def _places(self) -> dict[str, tuple[slice, slice]]:
        """Which digits each split of source and target has, of MNIST's training images or its test images."""
        train = (slice(TRAIN), slice(TRAIN)) if self.overlap else (slice(SOURCE_TRAIN), slice(SOURCE_TRAIN, TRAIN))
        val = slice(TRAIN, TRAIN + VAL), slice(TRAIN + VAL, TRAIN + 2 * VAL)
        return {"train": train, "val": val, "test": (slice(None), slice(None))}

    def _made(
        self, grey: dict[str, np.ndarray], places: dict[str, tuple[slice, slice]], files: list[Path]
    ) -> dict[str, np.ndarray]:
        photographs = dict.fromkeys(KINDS, found := read_photographs(files))
        if self.split_photographs:
            photographs = divided(found)
        made = {}
        for number, kind in enumerate(KINDS):
            images, target = grey[f"{'test' if kind == 'test' else 'train'}_images"], places[kind][1]
            own = range(len(images))[target]
            made[f"{kind}_images"] = blended(images[target], own, photographs[kind], self.make_seed, number)
        return made


def divided(photographs: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The photographs of each split, by a permutation from a fixed seed; of another number than 200 in proportion."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(photographs))
    ends = np.cumsum([count * len(photographs) // 200 for count in PHOTOGRAPHS.values()])[:-1]
    parts = np.split(order, ends)
    if not all(map(len, parts)):
        raise UsageError(
            f"There are {len(photographs)} photographs of BSDS500, too few for three splits: take all its 200, or "
            "data.split_photographs=false."
        )
    return {kind: [photographs[place] for place in part] for kind, part in zip(KINDS, parts, strict=True)}


def find_photographs(path: Path) -> list[Path]:
    """The file or files of BSDS500's training photographs under `path`: a parquet file, or the release's pictures.

    Raises:
        UsageError: there are none.
    """
    for folder in (path / form for form in FORMS):
        if found := sorted(folder.glob("train_images-*.parquet")) or sorted(folder.glob("images/train/*.jpg")):
            return found
    raise UsageError(
        f"The photographs of BSDS500 were not found as train_images-*.parquet or images/train/*.jpg in "
        f"{', '.join(f'{form}/' for form in FORMS)} of {path}: set paths.data=FOLDER or ETUDES_DATA=FOLDER to where "
        "they are, or take data=digits_m, which needs no download."
    )


def read_photographs(files: list[Path]) -> list[np.ndarray]:
    """The photographs, uint8 (height, width, 3) and upright, in the order of their names.

    Raises:
        UsageError: a file is damaged.
    """
    found: dict[str, np.ndarray] = {}
    for file in files:
        with damage_named(file, TITLE):
            found |= read_parquet(file) if file.suffix == ".parquet" else {file.name: decoded(file.read_bytes())}
    return [found[name] for name in sorted(found)]


def read_parquet(file: Path) -> dict[str, np.ndarray]:
    """By name the pictures of a parquet file with `image`, struct{bytes, path}, `name`, and `quarter_turns` to turn
    each by, anticlockwise, until it is upright."""
    import pyarrow.parquet as pq

    rows = pq.read_table(file, columns=["image", "name", "quarter_turns"]).to_pylist()
    return {row["name"]: np.rot90(decoded(row["image"]["bytes"]), row["quarter_turns"]) for row in rows}


def decoded(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
