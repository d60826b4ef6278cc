"""Which scenes can be drawn: the settings that all their data sets share, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from datamodules.errors import UsageError
from datamodules.scenes.records import SceneSettings

VERSION = 1  # of what scenes and pixels these settings give; part of the cache's key
SIDES = 32, 1024  # pixels; between them multiples of 16
MOST_ITEMS = 100_000
UPRIGHT = 85  # degrees: turned further, a 6 is a 9
LARGEST = 0.6  # side of a glyph, a share of the image's


def scene_settings(
    side: int,
    objects: Sequence[int],
    glyph_size: Sequence[float],
    max_angle: float,
    stretch: float,
    gap: float,
    scene_seed: int,
    split_seed: int,
    most_objects: int,
) -> SceneSettings:
    """What scenes are drawn by; `most_objects` is the largest number of digits that may be asked for.

    Raises:
        UsageError: a choice is impossible.
    """
    least, most = SIDES
    sides = f"a multiple of 16 from {least} to {most}"
    check("side", side, is_whole(side, least, most) and side % 16 == 0, sides)
    objects, glyph_size = pair("objects", objects), pair("glyph_size", glyph_size)
    counts = f"two whole numbers from 1 to {most_objects}, least and most"
    possible = all(is_whole(n, 1, most_objects) for n in objects) and objects == sorted(objects)
    check("objects", objects, possible, counts)
    sizes = all(map(is_number, glyph_size)) and 0 < glyph_size[0] <= glyph_size[1] <= LARGEST
    check("glyph_size", glyph_size, sizes, f"two numbers above 0 up to {LARGEST}, least and most")
    turns = is_number(max_angle) and 0 <= max_angle <= 180
    check("max_angle", max_angle, turns, "a number of degrees from 0 to 180")
    check("stretch", stretch, is_number(stretch) and stretch >= 1, "a number, 1 or more")
    check("gap", gap, is_number(gap) and gap >= 0, "a number, 0 or more")
    for name, value in {"scene_seed": scene_seed, "split_seed": split_seed}.items():
        check(name, value, is_whole(value, 0, 2**32 - 1), f"a whole number from 0 to {2**32 - 1}")
    return SceneSettings(
        tuple(objects), tuple(glyph_size), float(max_angle), float(stretch), float(gap), scene_seed, split_seed
    )


def check(key: str, value: Any, possible: bool, name: str) -> None:
    """Raises UsageError when a setting is impossible."""
    if not possible:
        raise UsageError(f"data.{key} is {value!r}, but it must be {name}.")


def is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def pair(key: str, values: Any) -> list[Any]:
    """The two values of a list.

    Raises:
        UsageError: it is no list of two.
    """
    there = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 2
    check(key, values, there, "a list of two numbers, least and most")
    return list(values)
