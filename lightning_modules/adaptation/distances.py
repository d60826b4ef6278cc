"""How far apart two sets of features are."""

from __future__ import annotations

import numpy as np


def proxy_a_distance(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """2 (1 − 2ε) of two sets of features (N, D) and (M, D), ε the test error of a linear SVM that tells them apart.

    It learns from half of each and is tested on the other half; 2: wholly apart; 0: alike (Ben-David et al. 2007;
    Ganin et al. 2016, section 3.2).
    """
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    x, y = np.concatenate([first, second]), np.repeat([0, 1], [len(first), len(second)])
    train, test, known, asked = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
    model = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=seed)).fit(train, known)
    return float(2 * (1 - 2 * (model.predict(test) != asked).mean()))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased MMD² of two sets of features (N, D) and (M, D) under k(x, y) = (xᵀy / D + 1)³.

    Bińkowski et al. 2018 (arXiv 1801.01401), section 3, whose kernel it is. On features of an own network: no KID.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def off_diagonal_mean(k: np.ndarray) -> float:
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return float(off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean())


def mean_kernel_distance(
    first: np.ndarray, second: np.ndarray, subsets: int = 10, size: int = 1000, seed: int = 0
) -> float:
    """The mean of `kernel_distance` over subsets drawn without replacement, of `size` or of all there are."""
    rng, size = np.random.default_rng(seed), min(size, len(first), len(second))
    found = []
    for _ in range(subsets):
        own = (values[rng.choice(len(values), size, replace=False)] for values in (first, second))
        found.append(kernel_distance(*own))
    return float(np.mean(found))
