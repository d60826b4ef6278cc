"""CamVid: street scenes from a car, every pixel one of 11 classes or void; frames of five videos."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError, did_you_mean
from datamodules.scenes.augment import SceneAugment, check_window
from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.loading import SceneDataModule
from datamodules.sources import damage_named, hashes
from datamodules.spec import SceneSpec

NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
VOID = 11
HEIGHT, WIDTH = 360, 480
SPLITS = ("train", "val", "test")
DIVISIONS = ("official", "random", "video")
TRAINED = ("0016E5", "0006R0")  # the videos that the split `video` trains on
RATE = 30  # frames a second


class CamVid(SceneDataModule):
    """`data=camvid`: 701 frames of 480×360; void counts nowhere. Training sees them scaled and cropped, mirrored or
    not, brighter or darker; validation and test see them at `size` and are scored on whole masks of 480×360.

    Args:
        path: the folder looked in, `paths.data`: {train,val,test}-*.parquet in it or its `camvid/`.
        cache: the folder for the decoded arrays (485 MB), `paths.cache`.
        split: `official`, 367 / 101 / 233 frames, whose validation is seven seconds of a video that is trained on;
            `random`, as many of all frames, drawn from `split_seed`; `video`, whose test frames are the official ones,
            trained on two other videos, of which the last tenth each validates.
        train_items: so many training frames, evenly spread; null: all.
        size: height and width of what is validated and tested on.
        crop: of a training image, after it was scaled by a factor of `scale`, least and most.
        mirror: half of the training images.
        brightness, contrast, colour: see `SceneAugment`.

    Raises:
        UsageError: the files are not there or damaged, or a choice is impossible.

    Source: Brostow, Fauqueur & Cipolla, Pattern Recognition Letters 30(2), 2009; masks of 11 classes by Badrinarayanan
    et al. (SegNet), CC BY-NC 4.0.
    """

    def __init__(
        self,
        path: str,
        cache: str,
        split: str = "official",
        split_seed: int = 0,
        train_items: int | None = None,
        size: Sequence[int] = (HEIGHT, WIDTH),
        crop: Sequence[int] = (180, 240),
        scale: Sequence[float] = (0.5, 1.0),
        mirror: bool = True,
        brightness: float = 0.1,
        contrast: float = 0.1,
        colour: float = 0.05,
        batch_size: int = 12,
        eval_batch_size: int = 8,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        if split not in DIVISIONS:
            raise UsageError(
                f"data.split is {split!r}{did_you_mean(str(split), DIVISIONS)}: choose {', '.join(DIVISIONS)}."
            )
        self.path, self.cache = (Path(str(folder)).expanduser().absolute() for folder in (path, cache))
        self.split, self.split_seed, self.train_items = split, split_seed, train_items
        if len(list(size)) != 2 or not all(isinstance(side, int) and side >= 32 for side in size):
            raise UsageError(f"data.size is {list(size)}, but it must be [height, width], 32 pixels or more each.")
        self.size = tuple(size)
        check_window(crop, scale, (HEIGHT, WIDTH))
        self.scene_augment = SceneAugment(
            256, VOID, mirror, scale=scale, crop=crop, brightness=brightness, contrast=contrast, colour=colour
        )
        self.frames: dict[str, list[str]] = {}  # of each split, each image's video and frame

    @property
    def spec(self) -> SceneSpec:
        return SceneSpec(3, *self.size, levels=256, classes=len(NAMES), names=NAMES, ignore=VOID)

    @property
    def note(self) -> str:
        return {
            "official": "validation is seven seconds of a video that is trained on, and overrates; of the test's two "
            "videos Seq05VD is the only unseen one",
            "random": "frames of one video lie in every split, a second apart: what is tested on was nearly seen",
            "video": "no test frame is of a video that was trained on",
        }[self.split]

    def load_splits(self) -> dict[str, SceneSplit]:
        files = find_parquet(self.path)
        arrays = cached_arrays(self.cache, "camvid", {"files": hashes(files), "version": 1}, lambda: decode(files))
        names = arrays["names"].tolist()
        rows = divide(names, arrays["split"], self.split, self.split_seed)
        rows["train"] = thinned(rows["train"], self.train_items)
        self.frames = {split: [names[row] for row in own] for split, own in rows.items()}
        whole = {split: SceneSplit(arrays["images"][own], arrays["masks"][own]) for split, own in rows.items()}
        return {s: part if s == "train" else part._replace(images=resized(part.images, self.size))
                for s, part in whole.items()}  # fmt: skip

    def parts(self, split: str) -> dict[str, np.ndarray]:
        """The rows of each video in a split, by its name."""
        videos = np.array([video_and_frame(name)[0] for name in self.frames[split]])
        return {str(video): np.flatnonzero(videos == video) for video in np.unique(videos)}

    def seconds_from_training(self, split: str) -> np.ndarray:
        """Of each of a split's frames the seconds to its video's nearest training frame, infinite without one (N,)."""
        known: dict[str, list[int]] = {}
        for name in self.frames["train"]:
            video, frame = video_and_frame(name)
            known.setdefault(video, []).append(frame)
        own = (video_and_frame(name) for name in self.frames[split])
        return np.array([min((abs(f - t) / RATE for t in known.get(v, [])), default=np.inf) for v, f in own])


def video_and_frame(name: str) -> tuple[str, int]:
    """“Seq05VD_f05100.png” → Seq05VD, 5100."""
    video, _, frame = name.removesuffix(".png").partition("_")
    return video, int(frame.removeprefix("f"))


def find_parquet(path: Path) -> list[Path]:
    """The three files, train first.

    Raises:
        UsageError: they are not there.
    """
    for folder in (path, path / "camvid"):
        files = [sorted(folder.glob(f"{split}-*.parquet")) for split in SPLITS]
        if all(files):
            return [file for own in files for file in own]
    raise UsageError(
        f"CamVid was not found as train-*.parquet, val-*.parquet and test-*.parquet in {path} or {path / 'camvid'}: "
        "set paths.data=FOLDER or ETUDES_DATA=FOLDER to where it is, or take data=digit_scenes, which needs no "
        "download."
    )


def decode(files: list[Path]) -> dict[str, np.ndarray]:
    """`images`, `masks`, `names` and `split` (0 train, 1 val, 2 test) of all frames.

    Raises:
        UsageError: a file is damaged or holds something else.
    """
    import pyarrow.parquet as pq

    images, masks, names, split = [], [], [], []
    for file in files:
        with damage_named(file.name, "CamVid"):
            for row in pq.read_table(file).to_pylist():
                image, mask = (np.asarray(Image.open(BytesIO(row[part]["bytes"]))) for part in ("image", "label"))
                if image.shape != (HEIGHT, WIDTH, 3) or mask.shape != (HEIGHT, WIDTH):
                    raise ValueError(f"{row['name']} has an image of {image.shape} and a mask of {mask.shape}")
                check_values(mask, len(NAMES), VOID, f"{file.name}, {row['name']}")
                images.append(image.transpose(2, 0, 1))
                masks.append(mask)
                names.append(row["name"])
                split.append(SPLITS.index(file.name.partition("-")[0]))
    return {"images": np.stack(images), "masks": np.stack(masks), "names": np.array(names), "split": np.array(split)}


def check_values(mask: np.ndarray, classes: int, ignore: int, name: str) -> None:
    """Raises UsageError when a mask holds a value that is no class."""
    values, counts = np.unique(mask, return_counts=True)
    for value, count in zip(values, counts, strict=True):
        if value >= classes and value != ignore:
            raise UsageError(
                f"The mask {name} has the value {value} in {count:,} pixels, but it must be a class, 0 to {classes - 1}"
                f"{f', or {ignore} for void' if ignore >= 0 else ''}."
            )


def divide(names: Sequence[str], split: np.ndarray, division: str, seed: int) -> dict[str, np.ndarray]:
    """The rows of each split."""
    official = {name: np.flatnonzero(split == number) for number, name in enumerate(SPLITS)}
    if division == "official":
        return official
    if division == "random":
        order, ends = (
            np.random.default_rng(seed).permutation(len(names)),
            np.cumsum([len(o) for o in official.values()]),
        )
        return {name: np.sort(part) for name, part in zip(SPLITS, np.split(order, ends[:-1]), strict=True)}
    found: dict[str, list[int]] = {"train": [], "val": []}
    for video in TRAINED:
        own = [row for row in official["train"] if video_and_frame(names[row])[0] == video]
        own.sort(key=lambda row: video_and_frame(names[row])[1])
        cut = len(own) - round(len(own) / 10)
        found["train"] += own[:cut]
        found["val"] += own[cut:]
    return {name: np.array(rows, np.int64) for name, rows in found.items()} | {"test": official["test"]}


def thinned(rows: np.ndarray, items: Any) -> np.ndarray:
    """So many of them, evenly spread.

    Raises:
        UsageError: there are fewer.
    """
    if items is None:
        return rows
    if not isinstance(items, int) or isinstance(items, bool) or not 1 <= items <= len(rows):
        raise UsageError(
            f"data.train_items is {items!r}, but this split has {len(rows)} training frames to choose from."
        )
    return rows[np.linspace(0, len(rows) - 1, items).round().astype(np.int64)]


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (N, C, H, W) at another size, bilinearly."""
    if images.shape[-2:] == size:
        return images
    found = np.empty((*images.shape[:2], *size), np.uint8)
    for row, image in enumerate(images):
        given = torch.from_numpy(np.array(image))[None]
        found[row] = F.interpolate(given, size, mode="bilinear", antialias=True, align_corners=False)[0].numpy()
    return found
