"""What can be said of an adapted classifier on the target's images without their labels.

Musgrave, Belongie & Lim 2022, "Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain
Adaptation" (arXiv 2208.07360). None of these chooses anything here: they are logged, and compared afterwards.
"""

from __future__ import annotations

import warnings

import numpy as np

CRITERIA = {  # and whether a larger value promises a better network
    "entropy": False,
    "information_maximisation": True,
    "bnm": True,
    "class_ami": True,
    "accuracy_source": True,
}


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """H(p) in nats of each row (N, classes) → (N,); 0 ln 0 is 0."""
    return -(probabilities * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))).sum(-1)


def information_maximisation(probabilities: np.ndarray) -> float:
    """H(mean p) − mean H(p): classes used alike, each image surely."""
    return float(entropies(probabilities.mean(0)) - entropies(probabilities).mean())


def bnm(probabilities: np.ndarray) -> float:
    """The nuclear norm of all probabilities (N, classes) over N (Cui et al. 2020, arXiv 2003.12237)."""
    return float(np.linalg.norm(probabilities, "nuc") / len(probabilities))


def class_ami(features: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Adjusted mutual information of k-means of the features (N, D) with the classes predicted (N,)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_mutual_info_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        clusters = KMeans(min(classes, len(features)), n_init=1, random_state=0).fit_predict(features)
    return float(adjusted_mutual_info_score(predicted, clusters))


def unlabelled_criteria(probabilities: np.ndarray, features: np.ndarray) -> dict[str, float]:
    """All of them by name, of a split's probabilities (N, classes) and features (N, D)."""
    p = probabilities.astype(np.float64)
    return {
        "entropy": float(entropies(p).mean()),
        "information_maximisation": information_maximisation(p),
        "bnm": bnm(p),
        "class_ami": class_ami(features, p.argmax(1), p.shape[1]),
    }
