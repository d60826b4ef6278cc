"""Letters as outlines, from the fonts that ship with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import UsageError
from datamodules.loader import Arrays
from datamodules.strokes.batches import ragged
from datamodules.strokes.forms import from_polylines, simplified, to_polylines
from datamodules.strokes.sketches import Drawings, SketchDataModule, drawings

# By family: an oblique is a shear of its upright, so fonts of one family on both sides would be copies.
FAMILIES = {
    "train": [f"DejaVu{kind}{style}" for kind, slant in (("Sans", "Oblique"), ("SansMono", "Oblique"),
              ("Serif", "Italic")) for style in ("", "-Bold", f"-{slant}", f"-Bold{slant}")],
    "val": ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"],
    "test": ["cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"],
}  # fmt: skip
EM = 100.0  # units of the drawings
TOLERANCE = 0.02 * EM


class Glyphs(SketchDataModule):
    """`data=glyphs`: needs no download. Twelve DejaVu fonts train, four of STIX validate, five of Computer Modern test.

    At each visit a training letter is rotated by ±8°, sheared by ±0.15 and begins at another point of each contour.

    Args:
        characters: the letters, a class each.
        visits: of each training letter in an epoch.
        others: see `SketchDataModule`.

    Raises:
        UsageError: a character is named twice, or a font has none of it.
    """

    apart = False  # fonts of a family are alike

    def __init__(self, characters: str = "ABCEX", visits: int = 40, **others: Any):
        super().__init__(**others)
        self.characters, self.visits = str(characters), visits
        if not self.characters or len(set(self.characters)) < len(self.characters):
            raise UsageError(f"data.characters is {characters!r}, but it must be one letter or several, each once.")
        if not isinstance(visits, int) or visits < 1:
            raise UsageError(f"data.visits is {visits!r}, but it must be a whole number, 1 or more.")

    @property
    def source(self) -> str:
        return "outlines of letters from matplotlib's fonts, divided by family"

    def load_drawings(self) -> tuple[dict[str, Drawings], tuple[str, ...]]:
        splits = {}
        for split, fonts in FAMILIES.items():
            repeated = self.visits if split == "train" else 1
            letters = [outline(font, character) for font in fonts for character in self.characters] * repeated
            splits[split] = drawings(letters, list(range(len(self.characters))) * (len(fonts) * repeated))
        return splits, tuple(self.characters)

    def jitter(self) -> Any:
        usual = super().jitter()

        def turned(arrays: Arrays, rng: np.random.Generator, rows: np.ndarray, epoch: int) -> Arrays:
            letters, labels = arrays
            return usual((ragged([turn(letter, rng) for letter in letters]), labels), rng, rows, epoch)

        return turned


def outline(font: str, character: str) -> np.ndarray:
    """A letter's contours as stroke-3, y down.

    Raises:
        UsageError: the font has no such letter.
    """
    from matplotlib import get_data_path
    from matplotlib.font_manager import FontProperties
    from matplotlib.ft2font import FT2Font
    from matplotlib.textpath import TextPath

    file = Path(get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    if not FT2Font(str(file)).get_char_index(ord(character)):
        raise UsageError(f"data.characters has '{character}', which the font {font} has not: leave it out.")
    path = TextPath((0, 0), character, size=EM, prop=FontProperties(fname=str(file)), usetex=False)
    contours = [simplified(contour * [1, -1], TOLERANCE) for contour in path.to_polygons(closed_only=True)]
    if not any(len(contour) > 2 for contour in contours):
        raise UsageError(f"data.characters has '{character}', which has no outline: leave it out.")
    return from_polylines([contour for contour in contours if len(contour) > 2])


def turn(letter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A letter rotated and sheared, each contour begun elsewhere."""
    angle, shear = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-0.15, 0.15)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.array([[1, 0], [shear, 1]]) @ turned
    begun = []
    for contour in to_polylines(letter):
        ring = np.roll(contour[:-1], int(rng.integers(len(contour) - 1)), axis=0)
        begun.append(np.concatenate([ring, ring[:1]]) @ matrix)
    return from_polylines(begun)
