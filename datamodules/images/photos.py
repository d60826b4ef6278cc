"""Patches of the two photographs that ship with scikit-learn: RGB, 256 levels, no download."""

from __future__ import annotations

import numpy as np

from datamodules.errors import UsageError
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.spec import ImageSpec

GRID = 3, 4  # tiles of a photograph, down and across
TILES = {"train": 16, "val": 3, "test": 5}
TILE_HEIGHT, TILE_WIDTH = 142, 160
SPLIT_SEED = 0


class Photos(ImageDataModule):
    """`data=photos`: needs no download; for trying colour models, not for comparing them.

    The photographs (427×640) are cut into tiles, each tile belongs to one split, and a patch lies within a tile: no
    pixel is in two splits. Tiles and places are drawn from a fixed seed, the same ones in every run.

    Args:
        size: height and width of a patch in pixels, up to the 142 of a tile.
        train_items, val_items, test_items: patches of each split; they overlap one another within it.

    Source: `sklearn.datasets.load_sample_images`: by danielbuechele and vultilion on Flickr, CC BY 2.0.
    """

    def __init__(
        self,
        size: int = 32,
        train_items: int = 2000,
        val_items: int = 200,
        test_items: int = 300,
        batch_size: int = 16,
        eval_batch_size: int = 100,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.size, self.items = size, {"train": train_items, "val": val_items, "test": test_items}
        limits = {"size": (size, TILE_HEIGHT), **{f"{name}_items": (n, 10**6) for name, n in self.items.items()}}
        for name, (value, most) in limits.items():
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UsageError(f"data.{name} is {value!r}, but it must be a whole number from 1 to {most}.")

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, height=self.size, width=self.size, levels=256)

    @property
    def class_names(self) -> list[str]:
        return []

    @property
    def note(self) -> str:
        return "patches of two photographs: for trying things out, not comparable with published figures"

    def load_splits(self) -> dict[str, Split]:
        from sklearn.datasets import load_sample_images

        tiles = [tile for photo in load_sample_images().images for tile in cut_tiles(photo)]
        rng = np.random.default_rng(SPLIT_SEED)
        order = iter(rng.permutation(len(tiles)))
        splits = {}
        for name, count in TILES.items():
            own = np.stack([tiles[next(order)] for _ in range(count)])
            patches = cut_patches(own, self.items[name], self.size, rng)
            splits[name] = Split(np.ascontiguousarray(patches.transpose(0, 3, 1, 2)), np.zeros(len(patches), np.int64))
        return splits


def cut_tiles(photo: np.ndarray) -> list[np.ndarray]:
    """The disjoint tiles (142, 160, 3) of a photograph (427, 640, 3); its last row is left over."""
    down, across = GRID
    rows = photo[: down * TILE_HEIGHT].reshape(down, TILE_HEIGHT, across, TILE_WIDTH, 3)
    return list(rows.transpose(0, 2, 1, 3, 4).reshape(-1, TILE_HEIGHT, TILE_WIDTH, 3))


def cut_patches(tiles: np.ndarray, items: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`items` patches (size, size, 3), each at a random place of a random one of the `tiles`."""
    places = np.lib.stride_tricks.sliding_window_view(tiles, (size, size), (1, 2))  # tile, top, left, 3, size, size
    which, top, left = (rng.integers(0, count, items) for count in places.shape[:3])
    return places[which, top, left].transpose(0, 2, 3, 1)
