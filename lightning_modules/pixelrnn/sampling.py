"""Drawing images from a network, one sub-pixel at a time, by the full network (section 3.6, equation 1)."""

from __future__ import annotations

import sys

import torch
from rich.progress import track
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork


def sample(network: AutoregressiveNetwork, count: int, **how) -> Tensor:
    """Draws `count` whole images; arguments and result as `complete`."""
    if count < 1:
        raise UsageError(f"{count} samples cannot be drawn: the number must be 1 or more.")
    device = next(network.parameters()).device
    return complete(network, torch.zeros(count, *network.spec.shape, dtype=torch.int64, device=device), 0, **how)


@torch.no_grad()
def complete(
    network: AutoregressiveNetwork,
    images: Tensor,
    first_row: int,
    *,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the rows from `first_row` on, given those above.

    Each draw is one pass over the rows down to its own; nothing below can matter.

    Args:
        network: put into evaluation mode for the time being.
        images: integers (N, C, H, W) on the network's device; left as they are.
        first_row: 0 … H.
        labels: (N,), for a conditional network.
        temperature: divides the logits; below 1 the likely intensities become likelier. Above 0.
        generator: of the network's device; None: the global one.

    Returns:
        uint8 (N, C, H, W), int16 if there are more than 256 levels.

    Raises:
        UsageError: the temperature is not above 0.
    """
    check_temperature(temperature)
    images = images.long().clone()
    channels, height, width = network.spec.shape
    was_training = network.training
    network.eval()
    bar = {"description": "drawing rows", "transient": True, "disable": not sys.stdout.isatty()}
    for row in track(range(first_row, height), **bar):
        for column in range(width):
            for channel in range(channels):
                here = network.features(images[:, :, : row + 1], labels)[:, :, row:, column : column + 1]
                logits = network.logits(here)[:, :, channel, 0, 0] / temperature
                drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)
                images[:, channel, row, column] = drawn[:, 0]
    network.train(was_training)
    return images.to(torch.uint8 if network.spec.levels <= 256 else torch.int16)


def check_temperature(temperature: float) -> None:
    """Raises UsageError when nothing can be drawn at such a temperature."""
    if temperature <= 0:
        raise UsageError(f"The temperature is {temperature}, but it must be above 0.")
