"""Which settings of the detector are possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from datamodules.errors import UsageError
from lightning_modules.detection.networks.head import RoISettings
from lightning_modules.detection.networks.rpn import RPNSettings

KINDS = {"oriented": (6, 5), "upright_proposals": (4, 5), "upright": (4, 4)}  # offsets of the RPN and of the head
MOST, WIDEST = 100_000, 8192


class Range(NamedTuple):
    """What numbers may be, in words, and whether one is."""

    words: str
    holds: Callable[[float], bool]


def whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and 1 <= value <= most


COUNTS = Range(f"a whole number from 1 to {MOST:,}", lambda value: whole(value, MOST))
WIDTHS = Range(f"a whole number from 1 to {WIDEST:,}", lambda value: whole(value, WIDEST))
LEVELS = Range("a whole number of maps from 1 to 8", lambda value: whole(value, 8))
BINS = Range("a whole number from 1 to 32", lambda value: whole(value, 32))
SHARES = Range("from 0 to 1", lambda value: 0 <= value <= 1)
ABOVE = Range("a number above 0 up to 10,000", lambda value: 0 < value <= 10_000)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_numbers(prefix: str, values: Mapping[str, Any], allowed: Range) -> None:
    """Raises UsageError when one of the settings is impossible."""
    for name, value in values.items():
        if not is_number(value) or not allowed.holds(value):
            raise UsageError(f"{prefix}.{name} is {value!r}, but it must be {allowed.words}.")


def check_choices(kind: str, backbone: str, widths: Sequence[int], ratios: Sequence[float]) -> None:
    """Raises UsageError when there is no such detector."""
    if kind not in KINDS:
        raise UsageError(f"model.kind is {kind!r}, but it must be one of {', '.join(KINDS)}.")
    if backbone not in ("small", "resnet50"):
        raise UsageError(f"model.backbone is {backbone!r}, but it must be small or resnet50.")
    if not widths or not all(is_number(width) and WIDTHS.holds(width) for width in widths):
        raise UsageError(f"model.widths is {list(widths)}, but it must be a list of widths, each {WIDTHS.words}.")
    if not ratios or not all(is_number(ratio) and 0 < ratio <= 100 for ratio in ratios):
        raise UsageError(f"model.ratios is {list(ratios)}, but it must be a list of ratios above 0 up to 100.")


def check_parts(rpn: RPNSettings, roi: RoISettings) -> None:
    """Raises UsageError when a setting of the proposals, or of the head, is impossible."""
    own = rpn._asdict()
    check_numbers("model.rpn", {name: own[name] for name in ("positive", "negative", "nms")}, SHARES)
    check_numbers("model.rpn", {name: own[name] for name in ("samples", "before", "proposals")}, COUNTS)
    if rpn.border is not None:
        check_numbers("model.rpn", {"border": rpn.border}, Range("a number of pixels, or null", lambda value: True))
    if rpn.negative > rpn.positive:
        raise UsageError(
            f"model.rpn.negative is {rpn.negative} and model.rpn.positive {rpn.positive}: the former must not be above."
        )
    check_numbers("model.roi", {"size": roi.size, "sampling": roi.sampling}, BINS)
    check_numbers("model.roi", {"samples": roi.samples}, COUNTS)
    check_numbers("model.roi", {"finest": roi.finest}, ABOVE)
    check_numbers("model.roi", {"positive": roi.positive, "share": roi.share}, SHARES)
    if len(roi.extend) != 2 or not all(is_number(value) and ABOVE.holds(value) for value in roi.extend):
        raise UsageError(f"model.roi.extend is {list(roi.extend)}, but it must be two factors above 0, of w and of h.")
