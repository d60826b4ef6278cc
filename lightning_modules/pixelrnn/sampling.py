"""Drawing images from a network, one sub-pixel at a time, by the full network (section 3.6, equation 1)."""

from __future__ import annotations

import sys

import torch
from rich.progress import track
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork


@torch.no_grad()
def sample(
    network: AutoregressiveNetwork,
    count: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws `count` images, uint8 or int16 as the levels need: (count, C, H, W), on the network's device.

    Each of the C·H·W draws is one pass over the rows down to its own; nothing below can matter.

    Args:
        network: put into evaluation mode for the time being.
        temperature: divides the logits; below 1 the likely intensities become likelier. Above 0.
        generator: of the network's device; None: the global one.

    Raises:
        UsageError: a count or a temperature that is not above 0.
    """
    check_draw(count, temperature)
    channels, height, width = network.spec.shape
    device = next(network.parameters()).device
    images = torch.zeros(count, channels, height, width, dtype=torch.int64, device=device)
    was_training = network.training
    network.eval()
    for row in track(range(height), description="sampling rows", transient=True, disable=not sys.stdout.isatty()):
        for column in range(width):
            for channel in range(channels):
                here = network.features(images[:, :, : row + 1])[:, :, row:, column : column + 1]
                logits = network.logits(here)[:, :, channel, 0, 0] / temperature
                drawn = torch.multinomial(logits.softmax(1), 1, generator=generator)
                images[:, channel, row, column] = drawn[:, 0]
    network.train(was_training)
    return images.to(torch.uint8 if network.spec.levels <= 256 else torch.int16)


def check_draw(count: int, temperature: float) -> None:
    """Raises UsageError when so many images cannot be drawn at such a temperature."""
    if count < 1 or temperature <= 0:
        raise UsageError(f"{count} samples at temperature {temperature} cannot be drawn: both must be above 0.")
