"""The stage `explore`: what each latent does, what lies between two images, what the prior draws."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.files import whole_file
from lightning_modules.anomaly.bounds import kl_per_latent
from lightning_modules.anomaly.likelihoods import Likelihood
from lightning_modules.anomaly.scores import TrainingLatents
from lightning_modules.anomaly.vae import VAE

log = logging.getLogger(__name__)

FILE = "explore.npz"
TRAVERSED = 8  # latents, those with the largest KL
STEPS = 9  # from −3 to 3 standard deviations; from one image to the other
REACH = 3.0
PAIRS = 4  # of normal test images
SAMPLES = 64


@torch.no_grad()
def explore(network: VAE, likelihood: Likelihood, latents: TrainingLatents, run: Any, seed: int) -> None:
    """Leaves `explore.npz` in the run's folder, pictures from 0 to 1.

    `traversals` (latents, steps, C, H, W): the mean latents of the training images, one of them moved from −3 to 3 of
    its standard deviations over these images; `traversed`: which, by their KL. `linear`, `spherical` (pairs, steps, C,
    H, W): between the latents of two normal test images. `samples` (64, C, H, W): the expected pictures of z drawn from
    the prior N(0, 1), not from any image's posterior.
    """
    device = next(network.parameters()).device
    split = run.datamodule.splits["test"]
    normal = split.images[np.isin(split.labels, run.datamodule.normal_labels)][: 2 * PAIRS]
    mean, log_variance = network.encode(torch.from_numpy(np.array(normal)).to(device))

    def pictures(z: Tensor) -> np.ndarray:
        """z (…, latent) → (…, C, H, W)."""
        return likelihood.mean(network.decode(z.flatten(0, -2))).view(*z.shape[:-1], *network.spec.shape).cpu().numpy()

    traversed = kl_per_latent(mean, log_variance).mean(0).argsort(descending=True)[:TRAVERSED]
    centre, spread = (torch.from_numpy(part).to(mean) for part in (latents.centre, latents.spread))
    moved = centre.repeat(len(traversed), STEPS, 1)
    reach = torch.linspace(-REACH, REACH, STEPS).to(mean)
    for row, latent in enumerate(traversed):
        moved[row, :, latent] += reach * spread[latent]
    first, last = mean[: len(mean) // 2 * 2 : 2], mean[1::2]
    generator = torch.Generator(device).manual_seed(seed)
    drawn = torch.randn(SAMPLES, network.latent, generator=generator, device=device)
    found = {"traversals": pictures(moved), "traversed": traversed.cpu().numpy(), "samples": pictures(drawn)}
    if len(first):
        found |= {"linear": pictures(linear(first, last, STEPS)), "spherical": pictures(spherical(first, last, STEPS))}
    with whole_file(path := run.folder / FILE) as unfinished:
        np.savez_compressed(unfinished, **found)
    log.info("explore: %s", path)


def linear(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Points on the straight way from z (B, latent) to another (B, latent): (B, steps, latent)."""
    part = torch.linspace(0, 1, steps).to(first)[None, :, None]
    return (1 - part) * first[:, None] + part * last[:, None]


def spherical(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Points on the arc from z to another, (B, steps, latent), where the prior's mass is (White 2016, 1609.04468).

    sin((1−t)ω)/sin ω · first + sin(tω)/sin ω · last, ω the angle between them; the straight way where it is almost 0.
    """
    cosine = torch.nn.functional.cosine_similarity(first, last, dim=1).clamp(-1, 1)
    angle = cosine.arccos()[:, None, None]
    part = torch.linspace(0, 1, steps).to(first)[None, :, None]
    arc = (((1 - part) * angle).sin() * first[:, None] + (part * angle).sin() * last[:, None]) / angle.sin()
    return torch.where(angle.sin() < 1e-4, linear(first, last, steps), arc)
