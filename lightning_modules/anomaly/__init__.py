"""What is unlike the normal images: a β-VAE, its scores, and what scores as well without a network."""

from lightning_modules.anomaly.module import AnomalyDetection
from lightning_modules.anomaly.vae import VAE

__all__ = ["VAE", "AnomalyDetection"]
