"""A folder of one's own pictures, each with a mask of the same name in another folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.images.folder import Images, divide, find_pictures
from datamodules.images.shared.image import ImageDataModule
from datamodules.images.shared.pictures import centre, read_picture
from datamodules.scenes.augment import SceneAugment
from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.camvid import check_values
from datamodules.scenes.loading import SceneDataModule
from datamodules.spec import SceneSpec


def images_or_scenes(
    masks: str | None = None, names: Sequence[str] | None = None, ignore: int = 255, **options: Any
) -> ImageDataModule:
    """`data=images`: with `masks` a `MaskedImages`, else `Images`."""
    if masks is None:
        if names is not None:
            raise UsageError("data.names are those of the classes in masks: give data.masks=FOLDER too.")
        return Images(**options)
    return MaskedImages(masks, names, ignore, **options)


class MaskedImages(SceneDataModule):
    """`data=images data.path=IMAGES data.masks=MASKS`: each picture's mask is the PNG of its name, of its size, whose
    values (grey, or a palette's numbers) are classes 0, 1, 2 …

    Training sees pictures mirrored or not, scaled by 0.75 to 1.25, brighter or darker.

    Args:
        masks: the folder of masks.
        names: of the classes; null: “class 0” and so on, as many as the masks have.
        ignore: the value of pixels that nobody labelled; −1: there are none.
        max_unreadable: a picture that cannot be read is an error here.
        others: see `Images`; masks are cut and scaled alike, by their nearest pixels.

    Raises:
        UsageError: a mask is missing, of another size, a picture in colours, or has a value that is no class.
    """

    def __init__(
        self, masks: str, names: Sequence[str] | None = None, ignore: int = 255, max_unreadable: int = 0, **options: Any
    ):
        pictures = Images(**options)  # which checks what both have
        super().__init__(pictures.batch_size, pictures.eval_batch_size, pictures.seed)
        self.pictures, self.masks = pictures, Path(str(masks)).expanduser().absolute()
        if not self.masks.is_dir():
            raise UsageError(f"data.masks={masks} is no folder: set it to the folder of masks.")
        if not isinstance(ignore, int) or not -1 <= ignore <= 255:
            raise UsageError(f"data.ignore is {ignore!r}, but it must be a mask's value, 0 to 255, or −1 for none.")
        self.ignore, self.given = ignore, names and tuple(str(name) for name in names)
        self.names: tuple[str, ...] = self.given or ()
        jitter = {"brightness": 0.1, "contrast": 0.1, "colour": 0.05}
        self.scene_augment = SceneAugment(256, ignore, mirror=True, scale=(0.75, 1.25), **jitter)

    @property
    def spec(self) -> SceneSpec:
        """`names` are known once the masks were read."""
        shape = (self.pictures.channels, self.pictures.height, self.pictures.width)
        return SceneSpec(*shape, levels=256, classes=len(self.names), names=self.names, ignore=self.ignore)

    def load_splits(self) -> dict[str, SceneSplit]:
        files = find_pictures(self.pictures.path)
        pairs = [(file, self.mask_of(file)) for file in files]
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for pair in pairs for file in pair]
        listing = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
        key = {"files": listing, "shape": self.spec.shape, "fit": self.pictures.fit, "ignore": self.ignore}
        key["classes"] = len(self.given) if self.given else None
        arrays = cached_arrays(self.pictures.cache, "masked_images", key, lambda: self._decode(pairs))
        if not self.given:
            labelled = arrays["masks"][arrays["masks"] != self.ignore]
            self.names = tuple(f"class {number}" for number in range(int(labelled.max()) + 1))
        rows = divide(len(files), *self.pictures.fractions, self.pictures.path)
        return {name: SceneSplit(arrays["images"][own], arrays["masks"][own]) for name, own in rows.items()}

    def mask_of(self, file: Path) -> Path:
        """Raises UsageError where there is none."""
        mask = (self.masks / file.relative_to(self.pictures.path)).with_suffix(".png")
        if not mask.is_file():
            raise UsageError(f"{file.name} has no mask: {mask} is not there.")
        return mask

    def _decode(self, pairs: list[tuple[Path, Path]]) -> dict[str, np.ndarray]:
        channels, height, width = self.spec.shape
        crop = self.pictures.fit == "crop"
        images = np.empty((len(pairs), channels, height, width), np.uint8)
        masks = np.empty((len(pairs), height, width), np.uint8)
        for row, (file, mask) in enumerate(pairs):
            try:
                images[row] = read_picture(file, channels, height, width, crop=crop)
                with Image.open(file) as picture:
                    size = picture.size
                with Image.open(mask) as picture:
                    own = check_mode(picture, mask)
            except UsageError:
                raise
            except Exception as error:  # a damaged file makes its parser raise almost anything
                raise UsageError(f"{file} or its mask cannot be read ({str(error).splitlines()[0]}).") from error
            if own.size != size:
                raise UsageError(
                    f"{file.name} has {size[0]}×{size[1]} pixels, but its mask {mask} {own.width}×{own.height}: make "
                    "them of one size."
                )
            if self.given:
                check_values(np.asarray(own), len(self.given), self.ignore, mask.name)
            box = centre(own.size, (width, height)) if crop else None
            masks[row] = np.asarray(own.resize((width, height), Image.Resampling.NEAREST, box))
        if (masks == self.ignore).all():
            raise UsageError(f"The masks in {self.masks} have no labelled pixel: all are {self.ignore}, data.ignore.")
        return {"images": images, "masks": masks}


def check_mode(picture: Image.Image, name: Path) -> Image.Image:
    """A mask with a class's number in every pixel.

    Raises:
        UsageError: it holds colours.
    """
    if picture.mode not in ("L", "P", "1"):
        raise UsageError(
            f"The mask {name} holds colours ({picture.mode}), but it must hold class numbers: save it as a grey or "
            "palette PNG whose values are 0, 1, 2 …"
        )
    picture.load()
    return picture.convert("L") if picture.mode == "1" else picture
