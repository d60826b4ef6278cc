"""The variational auto-encoder's network: an encoder of images to normal distributions, and a decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec, require_images

WIDTHS = (32, 64)  # of the strided convolutions, the first on the image
LEAST_SIDE = 4  # a map this small is not halved again
LOG_VARIANCES = -12.0, 12.0


class VAE(nn.Module):
    """Images (B, C, H, W) → the decoder's outputs at the posterior's mean (B, C, H, W), mean and log σ² (B, latent).

    Encoder: 4×4 convolutions of stride 2 with ReLUs, 32 and 64 wide (28 → 14 → 7, 32 → 16 → 8; of 8×8 images the first
    alone, 8 → 4), then `hidden` units, then the mean and log σ² of q(z | x). The decoder is its mirror with transposed
    convolutions. What the outputs mean is the likelihood's matter: see `likelihoods.py`. At 28×28, latent 32:
    1,700,609 parameters.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", arXiv 1312.6114, appendix C.

    Args:
        spec: the images.
        latent: numbers in z.
        hidden: units between maps and z.
        batch_norm: normalise every map by its batch. In evaluation such a network scores otherwise than it trained.

    Raises:
        UsageError: the data is no images, or a size is impossible.
    """

    def __init__(self, spec: Spec, *, latent: int = 32, hidden: int = 256, batch_norm: bool = False):
        super().__init__()
        self.spec = require_images(spec, "vae")
        if min(spec.height, spec.width) < 2:
            raise UsageError(f"vae halves images, which {spec.height}×{spec.width} does not allow: give larger ones.")
        for name, size in {"latent": latent, "hidden": hidden}.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"model.{name} is {size!r}, but it must be a whole number, 1 or more.")
        self.latent = latent
        sizes = [(spec.height, spec.width)]
        while len(sizes) <= len(WIDTHS) and (len(sizes) == 1 or min(sizes[-1]) >= 2 * LEAST_SIDE):
            sizes.append(tuple(side // 2 for side in sizes[-1]))
        widths = [spec.channels, *WIDTHS[: len(sizes) - 1]]
        shape = (widths[-1], *sizes[-1])
        features = shape[0] * shape[1] * shape[2]

        def norm(width: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(width)] if batch_norm else []

        down = []
        for old, new in pairwise(widths):
            down += [nn.Conv2d(old, new, 4, stride=2, padding=1), *norm(new), nn.ReLU()]
        self.encoder = nn.Sequential(
            *down, nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        up = [nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features), nn.ReLU(), nn.Unflatten(1, shape)]
        for place in range(len(widths) - 1, 0, -1):
            old, new = widths[place], widths[place - 1]
            odd = tuple(side % 2 for side in sizes[place - 1])  # what halving has dropped
            up.append(nn.ConvTranspose2d(old, new, 4, stride=2, padding=1, output_padding=odd))
            up += [*norm(new), nn.ReLU()] if place > 1 else []
        self.decoder = nn.Sequential(*up)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Intensities 0 … levels−1 (B, C, H, W) → mean and log σ² of q(z | x) (B, latent), the latter clamped."""
        mean, log_variance = self.encoder(images.float() / (self.spec.levels - 1)).float().chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent) → the likelihood's parameters (B, C, H, W)."""
        return self.decoder(z).float()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(images)
        return self.decode(mean), mean, log_variance


def draw(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z = μ + σε, through which gradients reach μ and σ (Kingma & Welling, section 2.4)."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise
