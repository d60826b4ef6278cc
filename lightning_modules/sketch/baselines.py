"""What a drawing costs without a memory: each offset from one mixture, each pen from the one before."""

from __future__ import annotations

import numpy as np

from datamodules.strokes.forms import END, LIFTED

MOST = 10_000  # offsets that the mixture is fitted to


def memoryless_nats(train: np.ndarray, test: np.ndarray, scale: float, mixtures: int, seed: int) -> float:
    """Mean nats of a test drawing, in units of `scale`, pens up to the first end.

    A Gaussian mixture fitted to all training offsets by EM (scikit-learn), and the frequencies of each pen after each.
    """
    from sklearn.mixture import GaussianMixture

    offsets = np.concatenate([strokes[:, :2] for strokes in train]) / scale
    chosen = np.random.default_rng(seed).permutation(len(offsets))[:MOST]
    components = min(mixtures, max(1, len(chosen) // 10))
    mixture = GaussianMixture(components, random_state=seed, max_iter=30, tol=1e-2).fit(offsets[chosen])
    counts = np.ones((3, 3))
    for strokes in train:
        np.add.at(counts, pens_of(strokes), 1)
    logs = np.log(counts / counts.sum(1, keepdims=True))
    nats = [-mixture.score_samples(own[:, :2] / scale).sum() - logs[pens_of(own)].sum() for own in test]
    return float(np.mean(nats))


def pens_of(strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pen of a drawing in stroke-3, its end too, and the pen before it; before the first it is down."""
    pens = np.concatenate([strokes[:, 2].astype(int) * LIFTED, [END]])
    return np.concatenate([[0], pens[:-1]]), pens
