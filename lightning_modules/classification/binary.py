"""Two classes: areas, thresholds chosen on validation images, and what they give on test images.

An item is called positive where its score is at least the threshold. A threshold is never read off test images; the one
figure that is (sensitivity at 90 % specificity, a point nobody could have chosen) says so in its report.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from lightning_modules.classification.analysis import reliability
from reporting.intervals import auc

SPECIFICITY = 0.9


class Called(NamedTuple):
    """What a threshold comes to: shares of the positives and of the negatives that are right, and of all."""

    sensitivity: float
    specificity: float
    accuracy: float

    @property
    def balanced(self) -> float:
        return (self.sensitivity + self.specificity) / 2


def called(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Called:
    """Args: labels (N,), true for positives; scores (N,)."""
    labels, positive = labels.astype(bool), scores >= threshold
    return Called(
        float(positive[labels].mean()), float((~positive[~labels]).mean()), float((positive == labels).mean())
    )


def cuts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The thresholds half way between neighbouring distinct scores, and sensitivity and specificity at each."""
    labels = labels.astype(bool)
    values = np.unique(scores)
    middles = (values[:-1] + values[1:]) / 2 if len(values) > 1 else values
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    sensitivity = 1 - np.searchsorted(positives, middles, side="left") / len(positives)
    specificity = np.searchsorted(negatives, middles, side="left") / len(negatives)
    return middles, sensitivity, specificity


def youden(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the largest sensitivity + specificity − 1; where neighbouring ones tie, their middle."""
    middles, sensitivity, specificity = cuts(labels, scores)
    index = sensitivity + specificity - 1
    first = last = int(np.argmax(index))
    while last + 1 < len(index) and np.isclose(index[last + 1], index[first], rtol=0, atol=1e-12):
        last += 1
    return float((middles[first] + middles[last]) / 2)


def at_specificity(labels: np.ndarray, scores: np.ndarray, least: float = SPECIFICITY) -> float:
    """The lowest threshold whose specificity is at least `least`; above all scores where none is."""
    middles, _, specificity = cuts(labels, scores)
    enough = middles[specificity >= least - 1e-12]
    return float(enough[0]) if len(enough) else float(scores.max() + 1e-6)


def binary_figures(
    labels: np.ndarray,
    scores: np.ndarray,
    probabilities: np.ndarray,
    chosen_on: tuple[np.ndarray, np.ndarray],
    *,
    cut: float = 0.5,
    prior: float | None = None,
) -> dict[str, float]:
    """Figures of two classes on test items; the caller has made sure that both are there.

    Args:
        labels: (N,), true for positives.
        scores: (N,), larger for what looks positive.
        probabilities: of being positive (N,).
        chosen_on: labels and scores of validation items, from which the thresholds come.
        cut: the score from which an item is called positive without a chosen threshold.
        prior: ln(n_pos / n_neg) of training, where its loss weighed both classes alike: the probabilities are then
            also given with it added to their logit.
    """
    labels = labels.astype(bool)
    usual, threshold, strict = called(labels, scores, cut), youden(*chosen_on), at_specificity(*chosen_on)
    at, at_strict = called(labels, scores, threshold), called(labels, scores, strict)
    found = {
        "auc_roc": auc(labels, scores),
        "auc_pr": float(average_precision_score(labels, scores)),
        "prevalence": float(labels.mean()),
        "balanced_accuracy": usual.balanced,
        "sensitivity": usual.sensitivity,
        "specificity": usual.specificity,
        "threshold": threshold,
        "accuracy_at_threshold": at.accuracy,
        "balanced_accuracy_at_threshold": at.balanced,
        "sensitivity_at_threshold": at.sensitivity,
        "specificity_at_threshold": at.specificity,
        "sensitivity_at_specificity_90": called(labels, scores, at_specificity(labels, scores)).sensitivity,
        "sensitivity_at_val_specificity_90": at_strict.sensitivity,
        "specificity_at_val_specificity_90": at_strict.specificity,
        "brier": brier(labels, probabilities),
        "auc_roc_val": auc(*chosen_on),
    }
    if prior is not None:
        shifted = expit(logit(np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)) + prior)
        found["brier_with_prior"] = brier(labels, shifted)
        found["calibration_error_with_prior"] = reliability(
            labels.astype(np.int64), np.stack([1 - shifted, shifted], 1)
        ).error
    return found


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean squared distance of the probability from 0 or 1."""
    return float(np.mean((probabilities.astype(np.float64) - labels) ** 2))
