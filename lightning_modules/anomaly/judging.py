"""How well a score tells anomalies from normal images: areas, a threshold, and what remains after a shortcut."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

BINS = 5  # of contrast
THRESHOLDS = ("quantile", "youden_val")


def auc(anomalous: np.ndarray, scores: np.ndarray) -> float:
    """The chance that an anomaly scores higher than a normal image, ties counting half; NaN without one of the two."""
    if anomalous.all() or not anomalous.any():
        return math.nan
    return float(roc_auc_score(anomalous, scores))


def areas(anomalous: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Areas under the ROC and, as average precision, under precision and recall of either side, beside the base rate.

    Where nine tenths of the images are anomalies, a score that knows nothing has an average precision of 0.9.
    """
    return {
        "auc_roc": auc(anomalous, scores),
        "auc_pr": float(average_precision_score(anomalous, scores)),
        "auc_pr_normal": float(average_precision_score(~anomalous, -scores)),
        "prevalence": float(anomalous.mean()),
    }


def quantile_threshold(scores: np.ndarray, quantile: float) -> float:
    """The smallest of the normal images' scores that at least the share `quantile` of them do not exceed."""
    return float(np.quantile(scores, quantile, method="higher"))


def youden_threshold(normal: np.ndarray, anomalies: np.ndarray) -> float:
    """The score above which sensitivity + specificity is largest.

    An image is anomalous if it scores above the threshold, so it lies half way to the next score below.
    """
    scores = np.concatenate([normal, anomalies])
    labels = np.repeat([0, 1], [len(normal), len(anomalies)])
    false, true, cuts = roc_curve(labels, scores, drop_intermediate=False)
    cut = cuts[np.argmax(true - false)]
    below = scores[scores < cut]
    return float((cut + below.max()) / 2 if len(below) and math.isfinite(cut) else min(cut, scores.max()))


def at_threshold(anomalous: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Anomalies found, normal images let pass, and the mean of the two."""
    called = scores > threshold
    sensitivity = float(called[anomalous].mean()) if anomalous.any() else math.nan
    specificity = float((~called[~anomalous]).mean()) if not anomalous.all() else math.nan
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def auc_within(anomalous: np.ndarray, scores: np.ndarray, contrast: np.ndarray) -> float:
    """The mean of the areas under the ROC inside five bins of like contrast: what is left of a score without it.

    Bins in which all images are normal, or none, are left out; NaN where no other is.
    """
    edges = np.quantile(contrast, np.arange(1, BINS) / BINS)
    bins = np.searchsorted(edges, contrast, side="right")
    found = [auc(anomalous[bins == n], scores[bins == n]) for n in range(BINS) if (bins == n).any()]
    found = [value for value in found if not math.isnan(value)]
    return float(np.mean(found)) if found else math.nan


def correlation(scores: np.ndarray, quantity: np.ndarray) -> float:
    """Spearman's; 0 where one of them does not vary."""
    if np.ptp(scores) == 0 or np.ptp(quantity) == 0:
        return 0.0
    return float(spearmanr(scores, quantity).statistic)
