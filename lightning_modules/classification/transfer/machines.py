"""What learns from features: support vectors with an RBF kernel, and logistic regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from datamodules.errors import UsageError
from lightning_modules.classification.transfer.folds import Point

MOST_ROWS = 20_000
KERNELS = ("rbf", "linear")


class VarianceSVC(SVC):
    """An SVC whose gamma is `multiple` / Σ_d Var(x_d) of what it is fitted to: sklearn's `scale` times `multiple`.

    (1 / D would be wrong after a PCA, whose components have not the variance 1.)
    """

    def __init__(self, *, kernel="rbf", C=1.0, multiple=1.0, class_weight=None, gamma="scale", break_ties=True):
        super().__init__(kernel=kernel, C=C, gamma=gamma, class_weight=class_weight, break_ties=break_ties)
        self.multiple = multiple

    def fit(self, X, y, sample_weight=None):
        self.gamma = gamma_of(X, self.multiple)
        return super().fit(X, y, sample_weight)


def gamma_of(x: np.ndarray, multiple: float) -> float:
    """`multiple` over the sum of the columns' variances."""
    return multiple / max(float(x.var(0).sum()), 1e-12)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """‖a_i − b_j‖² (n, m), by one product of matrices."""
    found = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(found, 0)


@dataclass(frozen=True)
class SupportVectors:
    """`svm` of the configuration: scaler, perhaps PCA, SVC. A grid over C and gamma, its multiples of 1 / Σ Var.

    C, gamma: the grid.
    pca: components to keep, a number, or a share of the variance; None: all columns.
    kernel: `rbf`, or `linear`, which has no gamma.
    class_weight: `balanced` or None.
    folds, inner_folds, outer_folds: of the grid's search on the training split; of that inside nested folds; of those.
    nested: judge by nested cross-validation too.
    """

    C: Sequence[float] = (3.0, 10.0, 30.0)
    gamma: Sequence[float] = (1 / 16, 1 / 4, 1.0)
    pca: float | int | None = None
    kernel: str = "rbf"
    class_weight: str | None = None
    folds: int = 5
    inner_folds: int = 3
    outer_folds: int = 5
    nested: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_grid("svm.C", self.C)
        check_grid("svm.gamma", self.gamma)
        check_folds("svm", self)
        if self.kernel not in KERNELS:
            raise UsageError(f"svm.kernel is {self.kernel!r}: choose {' or '.join(KERNELS)}.")
        whole = isinstance(self.pca, int) and not isinstance(self.pca, bool) and self.pca >= 1
        if self.pca is not None and not whole and not (isinstance(self.pca, float) and 0 < self.pca < 1):
            raise UsageError(
                f"svm.pca is {self.pca!r}, but it must be a number of components, a share between 0 and 1, or null."
            )

    def grid(self) -> list[Point]:
        gammas = [None] if self.kernel == "linear" else list(self.gamma)
        return [{"C": C, "gamma": gamma} for C in self.C for gamma in gammas]

    def preparation(self, rows: int) -> list[Any]:
        """Scaler and PCA, not fitted.

        Raises:
            UsageError: too many rows for a kernel, or too few for the PCA.
        """
        if rows > MOST_ROWS:
            hours = 4.0 * (rows / 4000) ** 2 * len(self.grid()) * self.folds / 3600
            raise UsageError(
                f"An SVM of {rows:,} images has a kernel of {rows:,}² numbers and its search would take about "
                f"{hours:.0f} hours: the limit is {MOST_ROWS:,}; take stages=[features,probe], which is linear in them."
            )
        if isinstance(self.pca, int) and self.pca >= rows:
            raise UsageError(f"svm.pca is {self.pca}, but a fold has {rows} images: choose fewer components.")
        return [StandardScaler(), *([] if self.pca is None else [PCA(self.pca, random_state=self.seed)])]

    def decisions(self, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        prepare = make_pipeline(*self.preparation(len(x)))
        own = prepare.fit_transform(x.astype(np.float64))
        others = prepare.transform(others.astype(np.float64))
        if self.kernel == "linear":
            kernels = {None: (own @ own.T, others @ own.T)}
        else:
            within, across = squared_distances(own, own), squared_distances(others, own)
            kernels = {m: (np.exp(-gamma_of(own, m) * within), np.exp(-gamma_of(own, m) * across)) for m in self.gamma}
        found = []
        for point in self.grid():
            kernel, judged = kernels[point["gamma"]]
            machine = SVC(kernel="precomputed", C=point["C"], class_weight=self.class_weight, break_ties=True)
            found.append(machine.fit(kernel, y).decision_function(judged))
        return found

    def fitted(self, x: np.ndarray, y: np.ndarray, point: Point) -> Pipeline:
        machine = VarianceSVC(
            kernel=self.kernel, C=point["C"], multiple=point["gamma"] or 1.0, class_weight=self.class_weight
        )
        return make_pipeline(*self.preparation(len(x)), machine).fit(x.astype(np.float64), y)


@dataclass(frozen=True)
class Probe:
    """`probe` of the configuration: scaler and logistic regression (L2, lbfgs), a grid over C."""

    C: Sequence[float] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
    class_weight: str | None = None
    folds: int = 5
    inner_folds: int = 3
    outer_folds: int = 5
    nested: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_grid("probe.C", self.C)
        check_folds("probe", self)

    def grid(self) -> list[Point]:
        return [{"C": C} for C in self.C]

    def regression(self, C: float) -> LogisticRegression:
        return LogisticRegression(C=C, class_weight=self.class_weight, max_iter=2000)

    def decisions(self, x: np.ndarray, y: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        scaler = StandardScaler().fit(x)
        own, others = scaler.transform(x), scaler.transform(others)
        return [self.regression(point["C"]).fit(own, y).decision_function(others) for point in self.grid()]

    def fitted(self, x: np.ndarray, y: np.ndarray, point: Point) -> Pipeline:
        return make_pipeline(StandardScaler(), self.regression(point["C"])).fit(x, y)


def settings_of(kind: type, given: Any, **more: Any) -> Any:
    """A machine with what a configuration's node gives; what a checkpoint older than it lacks is the usual."""
    given = {} if given is None else dict(given)
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in given.items() if key in known}, **more)


def check_grid(key: str, values: Sequence[float]) -> None:
    """Raises UsageError when a grid is empty or has a number that is not above 0."""
    good = not isinstance(values, str) and len(values) > 0
    if not good or any(isinstance(v, (bool, str)) or not 0 < v < math.inf for v in values):
        raise UsageError(f"{key} is {list(values)}, but it must be a list of numbers above 0.")


def check_folds(key: str, machine: Any) -> None:
    for name in ("folds", "inner_folds", "outer_folds"):
        value = getattr(machine, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise UsageError(f"{key}.{name} is {value!r}, but it must be a whole number, 2 or more.")


def linear_head(pipeline: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D) and biases (K,) whose logits, of features as they are, are the scaler's and the regression's.

    With W and b the regression's, μ and σ the scaler's: W / σ, b − W·μ/σ; of two classes −½ and +½ of its one row.
    """
    scaler, regression = pipeline[0], pipeline[-1]
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
