"""Scores of how anomalous an image is, larger is more, from a trained network: all of them in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lightning_modules.anomaly.bounds import bounds, kl_per_latent
from lightning_modules.anomaly.likelihoods import Bernoulli, Likelihood
from lightning_modules.anomaly.vae import VAE

# In words, for tables; the first eight exist under every likelihood.
SCORES = {
    "mse": "Σ (x − x̂)²",
    "reconstruction": "−log p(x ∣ μ)",
    "kl": "KL(q(z∣x) ‖ p(z))",
    "elbo": "−ELBO, β = 1",
    "iwae": "−log of the mean weight of K samples",
    "latent_mahalanobis": "distance of μ from the training images' μ, by their covariance",
    "latent_knn": "mean distance of μ to the five nearest training images' μ",
    "ssim": "1 − SSIM(x, x̂)",
    "excess": "−log p(x ∣ μ) less the image's own entropy: KL(Bern(x) ‖ Bern(x̂))",
    "complexity_corrected": "−log₂ p(x), by the bound of K samples, less the bits of the image as a PNG",
}
NEIGHBOURS = 5
MOST_DECIBELS = 100.0  # of an image that is reconstructed without an error
GAUSSIAN_WINDOW = 11  # of SSIM


def score_names(likelihood: Likelihood) -> list[str]:
    """The scores that there are under a likelihood."""
    found = list(SCORES)
    if not isinstance(likelihood, Bernoulli):
        found.remove("excess")
    if not likelihood.discrete:
        found.remove("complexity_corrected")
    return found


class TrainingLatents:
    """Where the training images' posterior means lie (N, latent), N above 1."""

    def __init__(self, means: np.ndarray):
        self.centre, self.spread = means.mean(0), means.std(0)
        covariance = np.cov(means.astype(np.float64), rowvar=False).reshape(means.shape[1], -1)
        self.precision = np.linalg.inv(covariance + 1e-6 * np.eye(len(covariance)))
        self.neighbours = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(means))).fit(means)

    def mahalanobis(self, means: np.ndarray) -> np.ndarray:
        away = (means - self.centre).astype(np.float64)
        return np.sqrt(np.einsum("bi,ij,bj->b", away, self.precision, away))

    def knn(self, means: np.ndarray) -> np.ndarray:
        return self.neighbours.kneighbors(means)[0].mean(1)


@torch.no_grad()
def image_scores(
    network: VAE, likelihood: Likelihood, latents: TrainingLatents, images: Tensor, samples: int, seed: int = 0
) -> dict[str, Tensor]:
    """Each score of `SCORES` that there is, (B,); also `psnr` (dB), `mean` (B, latent) and `kl_per_latent`.

    Args:
        images: intensities 0 … levels−1 (B, C, H, W).
        samples: K of the bounds.
        seed: of these samples.
    """
    x = images.float() / (network.spec.levels - 1)
    outputs, mean, log_variance = network(images)
    generator = torch.Generator(images.device).manual_seed(seed)
    bound = bounds(network, likelihood, x, mean, log_variance, samples, generator)
    kl, expected, means = kl_per_latent(mean, log_variance), likelihood.mean(outputs), mean.cpu().numpy()
    found = {
        "mse": (x - expected).square().flatten(1).sum(1),
        "reconstruction": -likelihood.log_prob(x, outputs),
        "kl": kl.sum(1),
        "elbo": -bound.elbo,
        "iwae": -bound.iwae,
        "latent_mahalanobis": torch.from_numpy(latents.mahalanobis(means)),
        "latent_knn": torch.from_numpy(latents.knn(means)),
        "ssim": 1 - similarity(x, expected),
    }
    if isinstance(likelihood, Bernoulli):
        found["excess"] = found["reconstruction"] - own_entropy(x)
    if likelihood.discrete:
        bits = torch.tensor([png_bits(image) for image in images.cpu().numpy()], dtype=torch.float64)
        found["complexity_corrected"] = -bound.iwae.cpu() / np.log(2) - bits
    return {**found, "psnr": decibels(x, expected), "mean": mean, "kl_per_latent": kl}


def own_entropy(x: Tensor) -> Tensor:
    """The entropy of an image whose grey is read as probabilities, nats (B,)."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


def png_bits(image: np.ndarray) -> int:
    """8 · the bytes of an image uint8 (C, H, W) as a PNG (Serrà et al. 2020, arXiv 1909.11480, section 3)."""
    out = BytesIO()
    picture = image.transpose(1, 2, 0)
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(out, "PNG", compress_level=9)
    return 8 * len(out.getvalue())


def decibels(x: Tensor, expected: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each image (B,); their mean is not that of the mean error."""
    found = peak_signal_noise_ratio(expected, x, data_range=1.0, reduction="none", dim=tuple(range(1, x.ndim)))
    return found.clamp(max=MOST_DECIBELS)


def similarity(x: Tensor, expected: Tensor) -> Tensor:
    """SSIM of each image (B,): with the Gaussian window of 11 pixels; of images too small for it, a square of 7."""
    side = min(x.shape[2:])
    window: dict[str, object] = {"sigma": 1.5, "kernel_size": GAUSSIAN_WINDOW}
    if side < GAUSSIAN_WINDOW:
        window = {"gaussian_kernel": False, "kernel_size": min(7, side - 1 + side % 2)}
    found = structural_similarity_index_measure(expected, x, data_range=1.0, reduction="none", **window)
    return found.reshape(len(x))


def in_batches(images: np.ndarray, size: int, device: torch.device) -> Sequence[Tensor]:
    """Images (N, C, H, W) as tensors of `size` images each."""
    return [
        torch.from_numpy(np.array(images[first : first + size])).to(device) for first in range(0, len(images), size)
    ]
