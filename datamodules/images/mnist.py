"""MNIST: 70,000 handwritten digits, 28×28, one channel; of two levels (drawn once, or every epoch) or 256."""

from __future__ import annotations

import gzip
import logging
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import ImageDataModule, Split, cut_validation, divide_anew
from datamodules.sources import Source, damage_named, hashes, hub_source, read_source, require
from datamodules.spec import ImageSpec

log = logging.getLogger(__name__)

SHAPE = (1, 28, 28)
CLASS_NAMES = [str(digit) for digit in range(10)]
HUB_NAME = "ylecun/mnist"
FOLDERS = ("mnist", "mnist/raw", "MNIST/raw", "mnist/MNIST/raw", ".")
DRAWN_ITEMS = {"train": 50_000, "valid": 10_000, "test": 10_000}
SPLITS = ("train", "val", "test")
SPLIT_SEED = DRAW_SEED = ORDER_SEED = 0

NOTES = {
    "static": "",
    "own draw": f"own draw (seed {DRAW_SEED}), not the paper's file",
    "dynamic": "dynamically binarised: not comparable with the static figures",
    "none": "256 grey levels: likelihoods are not comparable with the binarised figures",
}


class MNIST(ImageDataModule):
    """`data=mnist`: the 10,000 published test images test, 10,000 others validate, 50,000 train.

    Args:
        path: the folder looked in, `paths.data`; then, but for the file of the static draw, the Hub is asked.
        cache: the folder for the decoded arrays (55 MB), `paths.cache`.
        binarize: what a pixel is.
            static: 0 or 1, drawn once: the literature's own draw, in files `binarized_mnist_{train,valid,test}.amat`
                without labels; where they are missing, an own draw from a fixed seed, and `note` says so.
            dynamic: 0 or 1, training images drawn anew every epoch by (seed, epoch, batch number), so that
                `splits["train"]` holds grey values; validation and test images drawn once from a fixed seed.
            none: the 256 grey levels.
        val_items: validation images, the same ones in every run; the files of the static draw bring their own 10,000.
        test_share: test on this share of all 70,000 images, drawn anew; None: on the published test images.
        pad: pixels of intensity 0 around every image; 2 makes 32×32 of them, as LeNet-5's paper does.

    A draw takes a pixel for 1 with probability grey/255.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits". The static draw: Salakhutdinov & Murray,
    "On the quantitative analysis of deep belief networks", 2008, in the files of Larochelle & Murray, "The neural
    autoregressive distribution estimator", 2011.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        binarize: str = "static",
        batch_size: int = 16,
        eval_batch_size: int = 250,
        val_items: int = 10_000,
        test_share: float | None = None,
        pad: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        if not 0 <= pad <= 100:
            raise UsageError(f"data.pad is {pad}, but it must be a number of pixels from 0 to 100.")
        if binarize not in (known := ("static", "dynamic", "none")):
            raise UsageError(
                f"data.binarize is {binarize!r}{did_you_mean(str(binarize), known)}: choose {', '.join(known)}."
            )
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()
        if binarize == "static" and test_share is not None:
            raise UsageError(
                "data.test_share divides anew what data.binarize=static has divided: choose none or dynamic."
            )
        self.binarize, self.val_items, self.test_share, self.pad = binarize, val_items, test_share, pad
        self._kind = binarize  # a key of NOTES; "own draw" once the files of the static one were not found

    @property
    def spec(self) -> ImageSpec:
        levels = 256 if self.binarize == "none" else 2
        side = SHAPE[1] + 2 * self.pad
        return ImageSpec(1, side, side, levels=levels, classes=0 if self._kind == "static" else 10)

    @property
    def class_names(self) -> list[str]:
        return CLASS_NAMES[: self.spec.classes]

    @property
    def note(self) -> str:
        return NOTES[self._kind]

    def load_splits(self) -> dict[str, Split]:
        frame = ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad))
        splits = self._unpadded()
        if self.pad:
            splits = {name: split._replace(images=np.pad(split.images, frame)) for name, split in splits.items()}
        return splits

    def _unpadded(self) -> dict[str, Split]:
        if self.binarize == "static":
            if source := amat_source(self.path):
                return self._literature_draw(source)
            self._kind = "own draw"
            log.warning("%s/binarized_mnist_*.amat[.gz] is not there: %s.", self.path / "binarized_mnist", self.note)
        splits = self._grey()
        drawn = {"static": SPLITS, "dynamic": ("val", "test"), "none": ()}[self.binarize]
        for name in drawn:
            rng = np.random.default_rng((DRAW_SEED, SPLITS.index(name)))
            splits[name] = splits[name]._replace(images=draw(splits[name].images, rng))
        return splits

    def _literature_draw(self, source: Source) -> dict[str, Split]:
        read = partial(read_source, source, "binarised MNIST", SHAPE, 1)
        arrays = cached_arrays(self.cache, "binarized_mnist", source.key, read)
        splits = {}
        for name in SPLITS:
            # Copies of the files that are sorted by digit are in use: mixed, a split's first images are like all of it.
            order = np.random.default_rng(ORDER_SEED).permutation(len(arrays[f"{name}_images"]))
            splits[name] = Split(arrays[f"{name}_images"][order], arrays[f"{name}_labels"][order])
        return splits

    def published(self) -> tuple[Split, Split]:
        """The 60,000 training and the 10,000 test images in grey, in the files' order."""
        source = idx_source(self.path) or hub_source(HUB_NAME, "MNIST", self._looked_for(), SHAPE, CLASS_NAMES)
        arrays = cached_arrays(self.cache, "mnist", source.key, lambda: read_source(source, "MNIST", SHAPE, 10))
        given, test = (Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in ("train", "test"))
        return given, test

    def _grey(self) -> dict[str, Split]:
        given, test = divide_anew(*self.published(), self.test_share, SPLIT_SEED)
        train, val = cut_validation(given, self.val_items, SPLIT_SEED)
        return {"train": train, "val": val, "test": test}

    def _looked_for(self) -> str:
        amat = "binarized_mnist_train.amat[.gz] in binarized_mnist/, nor as " if self.binarize == "static" else ""
        folders = ", ".join(f"{folder}/" for folder in FOLDERS)
        return f"{amat}train-images-idx3-ubyte[.gz] in {folders} of {self.path}"

    def augment(self, images: np.ndarray, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> np.ndarray:
        return draw(images, rng) if self.binarize == "dynamic" else images


def draw(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images of 0 and 1, of which each pixel is 1 with probability grey/255: exactly that, in whole numbers."""
    return (rng.integers(0, 255, grey.shape, np.uint8) < grey).view(np.uint8)


def amat_source(path: Path) -> Source | None:
    """The files of the literature's draw in `path/binarized_mnist` or `path`; None where there is none of them.

    Raises:
        UsageError: one or two of the three are missing, or one cannot be read.
    """
    names = {split: f"binarized_mnist_{split}.amat" for split in DRAWN_ITEMS}
    for folder in (path / "binarized_mnist", path):
        if files := _find(folder, list(names.values()), "Binarised MNIST"):
            parts = {}
            for split, own in zip(DRAWN_ITEMS, SPLITS, strict=True):
                file = files[names[split]]
                parts[own] = {str(file): (file, DRAWN_ITEMS[split])}
            return Source({"form": "amat", "files": hashes(list(files.values()))}, parts, read_amat)
    return None


def idx_source(path: Path) -> Source | None:
    """The four original files of MNIST in one of FOLDERS; None where there is none of them.

    Raises:
        UsageError: not all four are there, or one cannot be read.
    """
    names = {
        split: (f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte")
        for split, start in {"train": "train", "test": "t10k"}.items()
    }
    for folder in (path / name for name in FOLDERS):
        if files := _find(folder, [name for pair in names.values() for name in pair], "MNIST"):
            pairs = {split: (files[images], files[labels]) for split, (images, labels) in names.items()}
            parts = {split: {f"{pair[0]} with its labels": pair} for split, pair in pairs.items()}
            return Source({"form": "idx", "files": hashes(list(files.values()))}, parts, read_idx_pair)
    return None


def _find(folder: Path, names: list[str], title: str) -> dict[str, Path]:
    """Each named file in `folder`, as it is or with `.gz`; empty where there is none.

    Raises:
        UsageError: some are there, some are not.
    """
    found = {}
    for name in names:
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                found.setdefault(name, file)
    if found:
        require(title, folder, [name for name in names if name not in found])
    return found


def _content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def read_amat(part: tuple[Path, int]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 28, 28) of 0 and 1, and labels all 0, of a text of N rows of 784 digits with blanks between.

    Args:
        part: the file and N.
    """
    file, items = part
    text = np.frombuffer(_content(file), np.uint8)
    ink = text > ord(" ")
    if (ink[1:] & ink[:-1]).any():
        raise ValueError("two characters without a blank between")
    digits = text[ink] - ord("0")
    if digits.max(initial=0) > 1:
        raise ValueError("values other than 0 and 1")
    if len(digits) != items * 784:
        raise ValueError(f"{len(digits)} values instead of {items} times 784")
    return digits.reshape(-1, *SHAPE), np.zeros(items, np.int64)


def read_idx_pair(files: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 28, 28) and labels (N,) of the two files of a split."""
    images, labels = (read_idx(file, dims) for file, dims in zip(files, (3, 1), strict=True))
    return images[:, None], labels


def read_idx(file: Path, dims: int) -> np.ndarray:
    """A uint8 array of `dims` dimensions: four bytes 0, 0, 8, dims; the sizes as big-endian uint32; the values.

    Raises:
        UsageError: it is not that; the message names the file.
    """
    with damage_named(file, "MNIST"):
        content = _content(file)
        start = 4 + 4 * dims
        if content[:4] != bytes((0, 0, 8, dims)) or len(content) < start:
            raise ValueError(f"it does not begin as an IDX file of {dims} dimensions")
        shape = tuple(int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4))
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
