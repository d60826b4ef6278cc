"""The stage `translate`: a strip of source images and their translations, of the test's or of a folder's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.images.shared.pictures import read_folder
from lightning_modules.adaptation.translation.translated import as_uint8, translations
from reporting.figures import image_grid

log = logging.getLogger(__name__)

ITEMS = 40  # test images, where no folder is named
COLUMNS = 10


def translate_images(module: Any, run: Any) -> None:
    """Writes `translated/strip.png`, rows of originals above rows of translations, and of a folder's images each one.

    Raises:
        UsageError: the folder of `images` is not there, or holds no image.
    """
    spec, folder = run.datamodule.spec, run.folder / "translated"
    if (chosen := run.config.get("images")) is not None:
        found = read_folder(Path(chosen), spec.height, spec.width)
    else:
        found = {str(n): image for n, image in enumerate(run.datamodule.splits["source_test"].images[:ITEMS])}
    images = np.stack([*found.values()])
    made = as_uint8(translations(module.network.eval(), images, module.device)["made"], spec.levels)
    folder.mkdir(exist_ok=True)
    rows = [part[start : start + COLUMNS] for start in range(0, len(images), COLUMNS) for part in (images, made)]
    columns = min(COLUMNS, len(images))
    rows = [np.concatenate([row, np.zeros((columns - len(row), *row.shape[1:]), row.dtype)]) for row in rows]
    strip = image_grid(np.concatenate(rows), spec.levels, columns)
    Image.fromarray(strip).save(folder / "strip.png")
    if chosen is not None:
        for name, image in zip(found, made, strict=True):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    log.info("translated: %s", folder / "strip.png")
