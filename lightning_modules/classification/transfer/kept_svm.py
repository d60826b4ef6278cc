"""A support vector machine in plain arrays, and its decisions in NumPy: no pickle, and so no code, is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import sklearn
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.classification.transfer.folds import predicted
from lightning_modules.classification.transfer.machines import squared_distances

FILE = "svm.npz"


class KeptSVM(NamedTuple):
    """What `svm.npz` holds.

    mean, scale (D,): the scaler's. components (P, D), centre (D,): the PCA's; empty without one. vectors (S, P or D),
    coefficients (K−1, S), intercepts: the support vectors', as scikit-learn has them; n_support (K,): how many of each
    class. gamma: the kernel's; 0: a linear one. temperature: of the probabilities.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    centre: np.ndarray
    vectors: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    n_support: np.ndarray
    classes: np.ndarray
    gamma: np.ndarray
    temperature: np.ndarray
    sklearn: np.ndarray

    @classmethod
    def of(cls, pipeline: Pipeline, temperature: float) -> KeptSVM:
        scaler, machine = pipeline[0], pipeline[-1]
        pca = next((part for _, part in pipeline.steps if isinstance(part, PCA)), None)
        return cls(
            mean=scaler.mean_,
            scale=scaler.scale_,
            components=np.empty((0, 0)) if pca is None else pca.components_,
            centre=np.empty(0) if pca is None else pca.mean_,
            vectors=machine.support_vectors_,
            coefficients=machine.dual_coef_,
            intercepts=machine.intercept_,
            n_support=machine.n_support_,
            classes=machine.classes_,
            gamma=np.float64(machine.gamma if machine.kernel == "rbf" else 0.0),
            temperature=np.float64(temperature),
            sklearn=np.array(sklearn.__version__),
        )

    def save(self, folder: Path) -> None:
        with whole_file(folder / FILE) as unfinished:
            np.savez_compressed(unfinished, **self._asdict())

    @classmethod
    def load(cls, folder: Path) -> KeptSVM:
        """Raises UsageError when the file is damaged, or holds Python objects."""
        try:
            with np.load(folder / FILE, allow_pickle=False) as loaded:
                return cls(**{name: loaded[name] for name in cls._fields})
        except (ValueError, OSError, KeyError, BadZipFile, EOFError) as error:
            raise UsageError(f"'{folder / FILE}' is damaged, or no file of an SVM: run stages=[svm] anew.") from error

    def kernel(self, x: np.ndarray) -> np.ndarray:
        """K(x, vectors) (N, S) of features (N, D)."""
        z = (x.astype(np.float64) - self.mean) / self.scale
        if self.components.size:
            z = (z - self.centre) @ self.components.T
        gamma = float(self.gamma)
        return np.exp(-gamma * squared_distances(z, self.vectors)) if gamma else z @ self.vectors.T

    def decisions(self, x: np.ndarray) -> np.ndarray:
        """Of two classes d (N,), positive for the second. Of more (N, K) votes_i + s_i / (3(|s_i| + 1)), where
        s_i = Σ_{j>i} d_ij − Σ_{j<i} d_ji: one against one, equal votes decided by s."""
        kernel = self.kernel(x)
        if len(self.classes) == 2:
            return kernel @ self.coefficients[0] + self.intercepts[0]
        ends = np.cumsum(self.n_support)
        parts = [slice(end - number, end) for end, number in zip(ends, self.n_support, strict=True)]
        number = len(self.classes)
        votes, sums = np.zeros((len(x), number)), np.zeros((len(x), number))
        pairs = ((i, j) for i in range(number) for j in range(i + 1, number))
        for (i, j), intercept in zip(pairs, self.intercepts, strict=True):
            d = kernel[:, parts[i]] @ self.coefficients[j - 1, parts[i]]
            d = d + kernel[:, parts[j]] @ self.coefficients[i, parts[j]] + intercept
            sums[:, i] += d
            sums[:, j] -= d
            votes[:, i] += d >= 0
            votes[:, j] += d < 0
        return votes + sums / (3 * (np.abs(sums) + 1))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes[predicted(self.decisions(x))]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return probabilities(self.decisions(x), float(self.temperature))


def logits_of(decisions: np.ndarray) -> np.ndarray:
    """Decisions as (N, K): of two classes the first one's are 0."""
    return np.stack([np.zeros_like(decisions), decisions], 1) if decisions.ndim == 1 else decisions


def probabilities(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(decisions / T) (N, K); of two classes sigmoid(d / T). The largest is the class that is predicted."""
    return softmax(logits_of(decisions) / temperature, 1)


def find_temperature(decisions: np.ndarray, labels: np.ndarray) -> float:
    """The T whose probabilities have the least cross-entropy (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The decisions must be of fits that had not seen the rows.
    """
    logits = logits_of(decisions)

    def loss(log_t: float) -> float:
        return float(-log_softmax(logits / math.exp(log_t), 1)[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x)
