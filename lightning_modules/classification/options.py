"""What the task refuses of its options."""

from __future__ import annotations

from collections.abc import Mapping

from datamodules.errors import UsageError
from lightning_modules.classification.network import Classifier

LARGEST_SIDE = 4096


def check_options(
    network: Classifier,
    *,
    shares: Mapping[str, float],
    multiples: Mapping[str, float],
    early: tuple[int, float],
    initialisation: str,
    class_weights: str,
    layer_decay: float,
) -> None:
    """Raises UsageError when a number is impossible, or the network is not made for it.

    Args:
        shares: options of `task.module` that are from 0 to, not including, 1.
        multiples: options of it that are 0 or more.
        early: `early_size` and `early_part`.
        others: see `Classification`.
    """
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UsageError(f"task.module.{name} is {value}, but it must be from 0 up to, not including, 1.")
    for name, value in multiples.items():
        if not value >= 0:
            raise UsageError(f"task.module.{name} is {value}, but it must be 0 or more.")
    if not 0 < layer_decay <= 1:
        raise UsageError(f"task.module.layer_decay is {layer_decay}, but it must be above 0, and 1 or less.")
    if layer_decay < 1 and not hasattr(network, "layers_in_order"):
        raise UsageError(
            "task.module.layer_decay is of a pretrained network's layers, and this one is none: leave it at 1."
        )
    if class_weights not in ("none", "balanced"):
        raise UsageError(f"task.module.class_weights is {class_weights!r}: choose none or balanced.")
    if initialisation not in ("default", "whitened"):
        raise UsageError(f"task.module.initialisation is {initialisation}: choose default or whitened.")
    if initialisation == "whitened" and not hasattr(network, "whiten_"):
        raise UsageError(
            "task.module.initialisation=whitened makes filters of a first convolution, which this network has not: "
            "choose default."
        )
    size, part = early
    if size > LARGEST_SIDE:
        raise UsageError(f"task.module.early_size is {size}, but it must be {LARGEST_SIDE} or less.")
    if part and not network.takes(size, size):
        raise UsageError(f"task.module.early_size is {size}, but the network takes images of {network.sizes}.")
