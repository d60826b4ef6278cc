"""Training images that lie on the device, where a batch is cut from them, flipped and cropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.images.shared.augment import FlipAndCrop, check_padding
from datamodules.loader import BatchLoader

SHARE = 20  # images may take this part of a device's free memory: the rest is for training


def has_room(device: torch.device, size: int) -> bool:
    """Is it a GPU of whose free memory so many bytes take a twentieth or less?"""
    return device.type == "cuda" and SHARE * size <= torch.cuda.mem_get_info(device)[0]


class DeviceLoader(BatchLoader):
    """The batches of a `BatchLoader`, cut and moved on a device: the same images to the bit, in the same order.

    What is drawn is drawn as ever, on the CPU; a batch sends no more than these numbers, four of each image.

    Args:
        images, labels, batch_size, others: see `BatchLoader`.
        device: which.
        moves: how images are moved; None: not at all.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        *,
        device: torch.device,
        moves: FlipAndCrop | None = None,
        **others: Any,
    ):
        super().__init__(images, labels, batch_size, seed, **others)
        self.device, self.moves = device, moves
        self.held: tuple[Tensor, Tensor] | None = None  # what lies there, from the first batch on

    def _batch(self, rows: np.ndarray, number: int) -> tuple[Tensor, Tensor]:
        if self.held is None:
            images, labels = self.arrays
            on_cpu = torch.from_numpy(np.array(images)), torch.from_numpy(labels.astype(np.int64))
            self.held = on_cpu[0].to(self.device), on_cpu[1].to(self.device)
        images, labels = self.held
        if self.moves is None:
            (rows,) = self._sent(rows)
            return images[rows], labels[rows]
        drawn = self.moves.drawn(self._generator(number), rows, self.sampler.epoch)
        rows, *places = self._sent(rows, *drawn)
        return moved(images, rows, *places, self.moves.padding), labels[rows]

    def _sent(self, *numbers: np.ndarray) -> Tensor:
        """Whole numbers, each (B,), on the device in one copy, for which a GPU's queue is not waited."""
        sent = torch.from_numpy(np.stack(numbers).astype(np.int64))
        return (sent.pin_memory() if self.device.type == "cuda" else sent).to(self.device, non_blocking=True)


def moved(images: Tensor, rows: Tensor, down: Tensor, right: Tensor, flips: Tensor, padding: int) -> Tensor:
    """What `FlipAndCrop` makes of the images `rows` (B,): each pixel is fetched from where it comes.

    Args:
        images: (N, C, H, W), on any device; the others whole numbers (B,) on the same.
        down, right: of the crop in the reflected image, 0 … 2·padding.
        flips: 1: then mirrored from left to right; 0: not.

    Returns:
        (B, C, H, W).
    """
    channels, height, width = images.shape[1:]
    check_padding(padding, height, width)
    y, x = (torch.arange(size, device=images.device) for size in (height, width))
    x = torch.where(flips[:, None] == 1, width - 1 - x, x)  # (B, W)
    y = reflected(y + down[:, None] - padding, height)[:, None, :, None]  # (B, 1, H, 1)
    x = reflected(x + right[:, None] - padding, width)[:, None, None, :]  # (B, 1, 1, W)
    return images[rows[:, None, None, None], torch.arange(channels, device=images.device)[:, None, None], y, x]


def reflected(places: Tensor, size: int) -> Tensor:
    """Places up to `size` − 1 beyond either edge, inside it: −1 → 1, `size` → `size` − 2."""
    return (size - 1) - ((size - 1) - places.abs()).abs()
