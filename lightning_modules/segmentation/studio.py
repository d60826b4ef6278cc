"""A user's own pictures → masks in colour, and the pictures with these over them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from datamodules.errors import UsageError
from datamodules.images.shared.pictures import SUFFIXES, read_upright
from lightning_modules.segmentation.fast_scnn import LEAST_SIDE, FastSCNN
from lightning_modules.segmentation.figures import coloured, palette_of, save_legend

log = logging.getLogger(__name__)

FOLDER = "segmented"
SHARE = 0.5  # of the colours in an overlay


def pictures_in(images: Any) -> list[Path]:
    """The picture files of `images=FOLDER`, in the order of their names.

    Raises:
        UsageError: it is no folder, or holds no picture.
    """
    if images is None:
        raise UsageError("stages=[segment] needs images=FOLDER, the folder of pictures.")
    folder = Path(str(images)).expanduser()
    if not folder.is_dir():
        raise UsageError(f"images={images} is no folder: give the folder of pictures.")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise UsageError(f"images={images} has no pictures: none of its files ends in {', '.join(SUFFIXES)}.")
    return files


def check_segment(run: Any) -> None:
    """Raises UsageError when there is nothing to segment."""
    pictures_in(run.config.images)


@torch.no_grad()
def segment_pictures(network: FastSCNN, device: torch.device, run: Any) -> None:
    """For each picture, at its size: NAME.png (class numbers, with a palette) and NAME_overlay.png; and a legend.

    The network sees pictures at the size it was trained on; its logits are enlarged to the picture's before the choice.
    """
    spec, out = network.spec, run.folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    palette = palette_of(spec.names)
    network.eval()
    done = 0
    for file in pictures_in(run.config.images):
        try:
            picture = read_upright(file, spec.channels)
        except Exception as error:  # a damaged file makes its parser raise almost anything
            log.warning("%s cannot be read (%s) and is left out.", file, str(error).split("\n")[0])
            continue
        if min(picture.size) < LEAST_SIDE:
            log.warning("%s has %d×%d pixels, fewer than %d a side, and is left out.", file, *picture.size, LEAST_SIDE)
            continue
        mask = classes_of(network, picture, device)
        shown = Image.fromarray(mask, "P")
        shown.putpalette(palette.ravel().tolist())
        shown.save(out / f"{file.stem}.png")
        plain = np.asarray(picture.convert("RGB"), np.float32)
        overlay = (1 - SHARE) * plain + SHARE * coloured(mask, palette)
        Image.fromarray(overlay.round().astype(np.uint8)).save(out / f"{file.stem}_overlay.png")
        done += 1
    save_legend(out / "legend.png", spec.names, palette)
    log.info("segment: %d pictures in %s", done, out)


def classes_of(network: FastSCNN, picture: Image.Image, device: torch.device) -> np.ndarray:
    """The class of each of a picture's pixels, uint8 (H, W)."""
    spec = network.spec
    small = np.asarray(picture.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    small = small.reshape(spec.height, spec.width, spec.channels).transpose(2, 0, 1)
    logits = network(torch.from_numpy(small.copy())[None].to(device))
    size = (picture.height, picture.width)
    return torch.nn.functional.interpolate(logits, size, mode="bilinear").argmax(1)[0].byte().cpu().numpy()
