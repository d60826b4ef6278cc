"""The numbers an attack is told, checked: sizes, norms, steps, and the images themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from datamodules.errors import UsageError, did_you_mean

NORMS = ("Linf", "L2")


def parse_eps(value: str | float, norm: str = "Linf", name: str = "eps") -> float:
    """The size of a perturbation, in units of intensities 0 … 1: `8/255` or 0.031 → a float.

    Args:
        value: a number, its text, or a fraction's.
        norm: in `L2` a size above 1 is no mistake: there it is the length of the whole perturbation.
        name: the key, for messages.

    Raises:
        UsageError: it is no number, below 0, or in L∞ above 1.
    """
    try:
        above, slash, below = str(value).partition("/")
        number = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{name} is {value!r}, but it must be a number such as 0.031 or 8/255.") from None
    if not 0 <= number < math.inf or (norm == "Linf" and number > 1):
        raise UsageError(
            f"{name} is {value}, but it must be from 0 to 1, the range of an intensity: pixels? write 8/255."
        )
    return number


def require_norm(norm: str, known: Sequence[str] = NORMS, attack: str = "This attack") -> None:
    """Raises UsageError when the attack does not know the norm."""
    if norm not in known:
        raise UsageError(f"{attack} knows {' and '.join(known)}, not norm={norm}{did_you_mean(norm, known)}.")


def require_at_least(least: int, **settings: int) -> None:
    """Raises UsageError when a setting is below `least`."""
    for name, value in settings.items():
        if not value >= least:
            raise UsageError(f"{name} is {value}, but it must be {least} or more.")


def require_images(images: Tensor, labels: Tensor) -> None:
    """Raises UsageError unless images are floats (N, C, H, W) in [0, 1] with N labels."""
    if not images.is_floating_point() or images.ndim != 4 or len(labels) != len(images):
        raise UsageError(
            f"Attacks take float images (N, C, H, W) in [0, 1] and N labels, not {images.dtype} of "
            f"{tuple(images.shape)} with {len(labels)} labels: divide integers by their levels − 1."
        )
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError(
            f"Attacks take images in [0, 1], but these run from {images.min():.4g} to {images.max():.4g}: divide them "
            "by their levels − 1."
        )
