"""What scores anomalies without a network, fitted to the same training images: shown beside it."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

COMPONENTS = (8, 16, 32, 64)  # of PCA
KEPT = 3000  # training images that neighbours and isolation forest are fitted to, the first ones
TREES = 100
HEADLINE = "pca_32"  # the baseline that the report sets the network against, fixed beforehand
WORDS = {
    "ppca": "−log p(x) of probabilistic PCA",
    "knn_1": "distance to the nearest training image",
    "knn_5": "mean distance to the five nearest training images",
    "isolation_forest": f"isolation forest of {TREES} trees",
    "brightness": "∣mean brightness − the training images'∣",
    "flatness": "minus the image's standard deviation",
}


class Baselines:
    """PCA's residual, probabilistic PCA, nearest neighbours, isolation forest, brightness, flatness.

    PCA of k components is fitted where the images have more pixels than k, and there are more than k of them; ppca has
    the most components fitted.

    Args:
        images: the training images uint8 (N, C, H, W).
        levels: of their pixels, which are scaled to lie from 0 to 1.
        seed: of the isolation forest.
    """

    def __init__(self, images: np.ndarray, levels: int, seed: int = 0):
        self.levels = levels
        x = self.rows(images)
        self.components = [k for k in COMPONENTS if k < min(x.shape)]
        if self.components:
            self.pca = PCA(self.components[-1], svd_solver="full").fit(x)
        kept = x[:KEPT]
        self.neighbours = NearestNeighbors(n_neighbors=min(5, len(kept))).fit(kept)
        self.forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(kept)
        self.brightness = x.mean()

    def rows(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float64) / (self.levels - 1)

    def scores(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Each baseline's score of images (B, C, H, W), (B,) each, larger is more anomalous."""
        x, found = self.rows(images), {}
        if self.components:
            away = x - self.pca.mean_
            along = np.square(away @ self.pca.components_.T).cumsum(1)
            total = np.square(away).sum(1)
            found |= {f"pca_{k}": total - along[:, k - 1] for k in self.components}
            if self.pca.noise_variance_ > 0:
                found["ppca"] = -self.pca.score_samples(x)
        distances = self.neighbours.kneighbors(x)[0]
        return {
            **found,
            "knn_1": distances[:, 0],
            "knn_5": distances.mean(1),
            "isolation_forest": -self.forest.score_samples(x),
            "brightness": np.abs(x.mean(1) - self.brightness),
            "flatness": -x.std(1),
        }


def in_words(name: str) -> str:
    """What a baseline is, for a table."""
    return WORDS.get(name) or f"the residual of PCA with {name.removeprefix('pca_')} components"
