"""Drawing images from a network, one sub-pixel at a time (section 3.6, equation 1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from datamodules.errors import UsageError
from lightning_modules.pixelrnn.incremental import NetworkSteps
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork


def sample(network: AutoregressiveNetwork, count: int, **how: Any) -> Tensor:
    """Draws `count` whole images; arguments and result as `complete`."""
    if count < 1:
        raise UsageError(f"{count} samples cannot be drawn: the number must be 1 or more.")
    device = next(network.parameters()).device
    return complete(network, torch.zeros(count, *network.spec.shape, dtype=torch.int64, device=device), 0, **how)


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

    Args:
        network: any of this package.
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
    fill(network, images, first_row, labels, lambda logits, place: draw(logits, temperature, generator), "drawing rows")
    return images.to(torch.uint8 if network.spec.levels <= 256 else torch.int16)


Choose = Callable[[Tensor, tuple[int, int, int]], Tensor]


@torch.no_grad()
def fill(
    network: AutoregressiveNetwork, images: Tensor, first_row: int, labels: Tensor | None, choose: Choose, doing: str
) -> None:
    """Goes through the sub-pixels of a batch in the network's order and fills in what is chosen.

    Args:
        network: put into evaluation mode for the time being.
        images: integers (N, C, H, W); rows from `first_row` on are overwritten, and not looked at before.
        first_row: 0 … H.
        labels: (N,), for a conditional network.
        choose: (logits (N, levels), (channel, row, column)) → intensities (N,).
        doing: for the progress bar.
    """
    channels, height, width = network.spec.shape
    images[:, :, first_row:] = 0
    was_training = network.training
    network.eval()
    steps = NetworkSteps(network, len(images), width, labels)
    bar = {"description": doing, "transient": True, "disable": not sys.stdout.isatty()}
    for row in track(range(height), **bar):
        for column in range(width):
            pixel = images[:, :, row, column]  # a view: what is chosen goes into the images
            if row < first_row:
                steps.step(pixel, column)
            else:
                for channel in range(channels):
                    logits = steps.logits(steps.step(pixel, column), channel)
                    pixel[:, channel] = choose(logits, (channel, row, column))
            steps.put(pixel, column)
        steps.end_row()
    network.train(was_training)


@torch.no_grad()
def complete_by_full_passes(
    network: AutoregressiveNetwork,
    images: Tensor,
    first_row: int,
    *,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The reference for `complete`: a pass of the full network for every sub-pixel. The network in evaluation mode."""
    images = images.long().clone()
    channels, height, width = network.spec.shape
    for row in range(first_row, height):
        for column in range(width):
            for channel in range(channels):
                logits = network(images, labels)[:, :, channel, row, column]
                images[:, channel, row, column] = draw(logits, temperature, generator)
    return images


def draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One intensity for each image, (N,), from logits (N, levels)."""
    probabilities = (logits / temperature).softmax(1)
    if not probabilities.isfinite().all():
        raise UsageError(
            f"Nothing can be drawn at temperature {temperature}: the network's logits are not finite there."
        )
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def check_temperature(temperature: float) -> None:
    """Raises UsageError when nothing can be drawn at such a temperature."""
    if not 0 < temperature < math.inf:
        raise UsageError(f"The temperature is {temperature}, but it must be above 0.")
