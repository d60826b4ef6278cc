"""The generator that translates images from one domain to the other.

Source: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks" (arXiv
1703.10593), appendix 7.2, with the residual blocks and the width left open.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.Module):
    """Each channel of each image (B, C, H, W) to mean 0 and variance 1, in float32 whatever comes in.

    Without running statistics, so that training and evaluation are the same, and without scale and shift. A constant
    plane becomes 0; in half precision it would become noise.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x.float()).to(x.dtype)


class Residual(nn.Module):
    """R: x plus two convolutions 3×3 of it, each normalised, a ReLU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect") for _ in range(2))
        self.norm = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.second(F.relu(self.norm(self.first(x)))))


class Generator(nn.Module):
    """Images (B, C, H, W) in [−1, 1] → images of the other domain, alike; H and W are multiples of 4.

    c7s1-w, d2w, d4w, R4w × blocks, u2w, uw, c7s1-C, as the paper calls them, and tanh. Parameters for RGB: 11,378,179
    of width 64 with 9 blocks and 7,837,699 with 6 (the paper's); 1,374,723 of width 32 with 4; 198,659 of 16 with 2.

    Args:
        channels: of an image.
        width: of the first convolution.
        blocks: residual ones.
        noise: planes of it beside the image: without them one image has one translation. PixelDA (Bousmalis et al.
            2017, arXiv 1612.05424) spreads a vector over a plane; here every pixel is drawn by itself, because an
            instance normalisation takes a constant plane away whole.
    """

    def __init__(self, channels: int, width: int, blocks: int, noise: int = 0):
        super().__init__()
        self.noise = noise
        self.enter = nn.Conv2d(channels + noise, width, 7, padding=3, padding_mode="reflect")
        self.down = nn.ModuleList(nn.Conv2d(k * width, 2 * k * width, 3, stride=2, padding=1) for k in (1, 2))
        self.blocks = nn.Sequential(*(Residual(4 * width) for _ in range(blocks)))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * k * width, k * width, 3, stride=2, padding=1, output_padding=1) for k in (2, 1)
        )
        self.leave = nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect")
        self.norm = InstanceNorm()
        self.apply(initialise)

    def draw(self, x: Tensor, seed: int | None = None) -> Tensor | None:
        """z (B, noise, H, W) for images x, standard normal; None without noise. With a seed always the same."""
        if not self.noise:
            return None
        rng = None if seed is None else torch.Generator().manual_seed(seed)
        return torch.randn(len(x), self.noise, *x.shape[2:], generator=rng).to(x.device)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        if self.noise:
            z = self.draw(x) if z is None else z
            x = torch.cat([x, z.to(x.dtype)], 1)
        x = F.relu(self.norm(self.enter(x)))
        for convolution in self.down:
            x = F.relu(self.norm(convolution(x)))
        x = self.blocks(x)
        for convolution in self.up:
            x = F.relu(self.norm(convolution(x)))
        return self.leave(x).float().tanh()


def initialise(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02²), biases 0, as both players of the paper have them."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)
