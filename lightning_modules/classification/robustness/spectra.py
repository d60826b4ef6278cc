"""Of which spatial frequencies perturbations are made.

Source: Yin et al. 2019, "A Fourier Perspective on Model Robustness in Computer Vision" (arXiv 1906.08988).
"""

from __future__ import annotations

import numpy as np

BINS = 8


def radial_spectrum(perturbations: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Middles of rings of frequency (R,), cycles a pixel, and the mean power in each in multiples of white noise's.

    The squared discrete Fourier transform of each channel of each perturbation (N, C, H, W), divided by its mean over
    all frequencies but 0 of all perturbations, averaged over rings up to half a cycle a pixel and beyond into the
    corners. Rings that hold no frequency are left out; 0, the mean brightness, is none.
    """
    power = (np.abs(np.fft.fft2(perturbations.astype(np.float64))) ** 2).mean((0, 1))
    down, across = (np.fft.fftfreq(side) for side in power.shape)
    radius = np.hypot(down[:, None], across[None])
    alive = radius > 0
    edges = np.linspace(0, radius.max(), bins + 1)
    rings = np.clip(np.searchsorted(edges, radius[alive], side="left") - 1, 0, bins - 1)
    power = power[alive] / max(power[alive].mean(), 1e-30)
    counts = np.bincount(rings, minlength=bins)
    sums, radii = (np.bincount(rings, values, minlength=bins) for values in (power, radius[alive]))
    there = counts > 0
    return radii[there] / counts[there], sums[there] / counts[there]
