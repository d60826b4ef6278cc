"""Aerial images with rotated boxes in DOTA's form, from a folder: large images are cut into overlapping tiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.scenes.augment import SceneAugment
from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.dota_text import CLASSES, Labels, read_labels
from datamodules.scenes.loading import SceneDataModule
from datamodules.scenes.rectangles import share_inside
from datamodules.scenes.settings import check, is_whole
from datamodules.sources import hashes
from datamodules.spec import SceneSpec

log = logging.getLogger(__name__)
VERSION = 1  # of what the files become; part of the cache's key
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".bmp")
GREY = 128  # beyond an image's border
KEPT, SEEN = 0.7, 0.1  # shares of an object inside a tile: from here on it is learnt, from here on it is difficult


class Pair(NamedTuple):
    image: Path
    labels: Path


class Tile(NamedTuple):
    """pixels (3, T, T) uint8; boxes (K, 5), polygons (K, 8), classes (K,), difficult (K,); left and top (2,)."""

    pixels: np.ndarray
    boxes: np.ndarray
    polygons: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    offset: tuple[int, int]


class Dota(SceneDataModule):
    """`data=dota data.path=FOLDER`: images and `labelTxt`, tiles in memory.

    The folder has `train`, `val` and perhaps `test`, each with `images` and `labelTxt`; without a labelled `test` the
    official `val` is tested on, and images drawn from `train` validate. Or it has `images` and `labelTxt` itself, which
    are then divided image by image, 70 : 15 : 15.

    In a tile an object counts if its centre and 70 % of its area lie inside; one of which 10 % or more lie inside is
    difficult; others are not there. Objects keep their whole box.

    Args:
        path: the folder.
        cache: the folder for the tiles, `paths.cache`.
        tile, overlap: pixels.
        classes: names, in the order of their numbers; null: the 15 of DOTA 1.0.
        augment: mirror training tiles, and turn them by quarters.
        split_seed: of images drawn.

    Raises:
        UsageError: the folder is not of this form, or holds a class that is not listed.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        tile: int = 1024,
        overlap: int = 200,
        classes: Sequence[str] | None = None,
        augment: bool = True,
        batch_size: int = 2,
        eval_batch_size: int = 4,
        split_seed: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        check("tile", tile, is_whole(tile, 32, 8192), "a whole number of pixels from 32 to 8192")
        check("overlap", overlap, is_whole(overlap, 0, tile - 1), "a whole number of pixels from 0 to below data.tile")
        if not path:
            raise UsageError("data.path is missing: name the folder that has images and labelTxt.")
        self.path, self.cache = (Path(str(place)).expanduser().absolute() for place in (path, cache))
        self.tile, self.overlap, self.split_seed = tile, overlap, split_seed
        self.names = tuple(classes or CLASSES)
        self.scene_augment = SceneAugment(256, mirror=True, quarter_turns=True) if augment else None
        self.most = 1
        self.images: dict[str, list[str]] = {}  # of each split the names that `image_number` counts

    @property
    def spec(self) -> SceneSpec:
        return SceneSpec(3, self.tile, self.tile, 256, len(self.names), self.names, boxes=self.most)

    def load_splits(self) -> dict[str, SceneSplit]:
        pairs = divided(self.path, self.split_seed)
        files = sorted({file for own in pairs.values() for pair in own for file in pair})
        key = {"version": VERSION, "tile": self.tile, "overlap": self.overlap, "names": list(self.names)}
        key |= {
            "files": {str(f.relative_to(self.path)): hashes([f])[f.name] for f in files},
            "splits": {name: [p.image.name for p in own] for name, own in pairs.items()},
        }
        arrays = cached_arrays(self.cache, "dota", key, lambda: self._make(pairs))
        self.most = arrays["train_boxes"].shape[1]
        self.images = {name: [pair.image.stem for pair in own] for name, own in pairs.items()}
        fields = [name for name in SceneSplit._fields if name != "masks"]
        return {split: SceneSplit(**{name: arrays[f"{split}_{name}"] for name in fields}) for split in pairs}

    def _make(self, pairs: dict[str, list[Pair]]) -> dict[str, np.ndarray]:
        tiles = {split: list(self._tiles(own)) for split, own in pairs.items()}
        most = max(1, *(len(tile.boxes) for own in tiles.values() for _, tile in own))
        log.info("Cut into tiles: %s.", ", ".join(f"{len(own)} for {split}" for split, own in tiles.items()))
        return {f"{split}_{name}": a for split, own in tiles.items() for name, a in stacked(own, most).items()}

    def _tiles(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Tile]]:
        for number, pair in enumerate(pairs):
            pixels = read_image(pair.image)
            labels = read_labels(pair.labels, (pixels.shape[2], pixels.shape[1]))
            if unknown := sorted(set(labels.names) - set(self.names)):
                raise UsageError(
                    f"'{pair.labels}' has the class {unknown[0]!r}, which is none of {', '.join(self.names)}: list all "
                    "classes in data.classes."
                )
            classes = np.array([self.names.index(name) for name in labels.names], np.int64)
            for left, top in offsets(pixels.shape, self.tile, self.overlap):
                yield number, cut(pixels, labels, classes, left, top, self.tile)


def divided(folder: Path, seed: int) -> dict[str, list[Pair]]:
    """Which images train, validate and test: see `Dota`."""
    if (folder / "train").is_dir():
        train, official = pairs_in(folder / "train"), pairs_in(folder / "val")
        if (folder / "test" / "labelTxt").is_dir():
            return {"train": train, "val": official, "test": pairs_in(folder / "test")}
        order, held = np.random.default_rng(seed).permutation(len(train)), max(1, len(train) // 10)
        if len(train) < 2:
            raise UsageError(f"'{folder / 'train'}' has {len(train)} labelled image(s), but 2 or more are needed.")
        chosen = [[train[place] for place in np.sort(part)] for part in (order[held:], order[:held])]
        return {"train": chosen[0], "val": chosen[1], "test": official}
    pairs = pairs_in(folder)
    if len(pairs) < 3:
        raise UsageError(
            f"'{folder}' has {len(pairs)} labelled image(s), but 3 or more are needed, to train, validate and test."
        )
    order, held = np.random.default_rng(seed).permutation(len(pairs)), max(1, round(0.15 * len(pairs)))
    parts = {"train": order[2 * held :], "val": order[:held], "test": order[held : 2 * held]}
    return {split: [pairs[place] for place in np.sort(part)] for split, part in parts.items()}


def pairs_in(folder: Path) -> list[Pair]:
    """A folder's images that have labels, by name.

    Raises:
        UsageError: it lacks `images` or `labelTxt`, or no image has labels.
    """
    for part in ("images", "labelTxt"):
        if not (folder / part).is_dir():
            raise UsageError(f"'{folder}' has no folder {part}: DOTA's form is images/NAME.png and labelTxt/NAME.txt.")
    files = sorted(file for file in (folder / "images").iterdir() if file.suffix.lower() in ENDINGS)
    found = [Pair(file, folder / "labelTxt" / f"{file.stem}.txt") for file in files]
    if not (found := [pair for pair in found if pair.labels.exists()]):
        raise UsageError(f"No image in '{folder / 'images'}' has its labels, labelTxt/NAME.txt.")
    return found


def read_image(file: Path) -> np.ndarray:
    """Pixels (3, H, W) uint8.

    Raises:
        UsageError: it is no picture.
    """
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"'{file}' cannot be read as a picture: {error}.") from error


def offsets(shape: Sequence[int], tile: int, overlap: int) -> list[tuple[int, int]]:
    """Left and top of the tiles that cover an image (…, H, W); the last of a row ends where the image does."""

    def starts(side: int) -> list[int]:
        if side <= tile:
            return [0]
        return [*range(0, side - tile, tile - overlap), side - tile]

    return [(left, top) for top in starts(shape[-2]) for left in starts(shape[-1])]


def padded(pixels: np.ndarray, left: int, top: int, tile: int) -> np.ndarray:
    """A tile (C, tile, tile) of pixels (C, H, W), grey beyond the border."""
    found = np.full((pixels.shape[0], tile, tile), GREY, np.uint8)
    part = pixels[:, top : top + tile, left : left + tile]
    found[:, : part.shape[1], : part.shape[2]] = part
    return found


def cut(pixels: np.ndarray, labels: Labels, classes: np.ndarray, left: int, top: int, tile: int) -> Tile:
    """A tile and its objects: see `Dota`."""
    boxes = labels.boxes - np.array([left, top, 0, 0, 0])
    share = share_inside(boxes, tile, tile)
    centred = ((boxes[:, :2] >= 0) & (boxes[:, :2] <= tile)).all(1)
    there = share >= SEEN
    hard = labels.difficult | (share < KEPT) | ~centred
    points = (labels.points - np.array([left, top])).reshape(-1, 8)
    return Tile(padded(pixels, left, top, tile), boxes[there], points[there], classes[there], hard[there], (left, top))


def stacked(tiles: Sequence[tuple[int, Tile]], most: int) -> dict[str, np.ndarray]:
    """The arrays of a `SceneSplit`, with `most` boxes an image."""
    count = len(tiles)
    found = {
        "images": np.stack([tile.pixels for _, tile in tiles]),
        "boxes": np.zeros((count, most, 5), np.float32),
        "classes": np.full((count, most), -1, np.int64),
        "difficult": np.zeros((count, most), bool),
        "counts": np.array([len(tile.boxes) for _, tile in tiles], np.int64),
        "polygons": np.zeros((count, most, 8), np.float32),
        "image_number": np.array([number for number, _ in tiles], np.int64),
        "offset": np.array([tile.offset for _, tile in tiles], np.int64),
    }
    for row, (_, tile) in enumerate(tiles):
        for name in ("boxes", "classes", "difficult", "polygons"):
            found[name][row, : len(tile.boxes)] = getattr(tile, name)
    return found
