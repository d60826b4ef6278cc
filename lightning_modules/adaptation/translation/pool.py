"""Generated images kept for the discriminator, so that it judges more than the generator's latest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Generated images, `size` at most (Shrivastava et al. 2017, arXiv 1612.07828; Zhu et al. 2017, section 4).

    While it fills, an image goes in and comes back. When it is full, by an even chance either an old one comes back
    and the new one takes its place, or the new one comes back and is not kept. All of it is in the checkpoint, in
    float32; draws come from torch's generator of the CPU.

    Args:
        size: 0: every image comes back.
        shape: of an image (C, H, W).
    """

    def __init__(self, size: int, shape: tuple[int, int, int]):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.tensor(0))

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """As many images (B, C, H, W) as are given, one after the other, without their graph."""
        images = images.detach().to(self.images.dtype)
        if self.size == 0:
            return images
        kept, back = self.exchange(int(self.count), len(images))
        both = torch.cat([self.images, images])
        returned = both[back.to(images.device)]
        self.images.copy_(both[kept.to(images.device)])
        self.count.fill_(min(self.size, int(self.count) + len(images)))
        return returned

    def exchange(self, count: int, items: int) -> tuple[Tensor, Tensor]:
        """Which images the pool holds afterwards (size,), and which come back (items,); the new ones' numbers follow
        those of the pool's places."""
        kept, back = list(range(self.size)), []
        swapped, places = torch.rand(items) > 0.5, torch.randint(self.size, (items,))
        for number in range(items):
            new = self.size + number
            if count < self.size:
                kept[count], count = new, count + 1
                back.append(new)
            elif swapped[number]:
                place = int(places[number])
                back.append(kept[place])
                kept[place] = new
            else:
                back.append(new)
        return torch.tensor(kept), torch.tensor(back)
