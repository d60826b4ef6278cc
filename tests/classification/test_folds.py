"""Folds: nothing that is judged has been fitted to."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import SelectKBest

from datamodules.errors import UsageError
from datamodules.images.shared.image import Split
from lightning_modules.classification.transfer.folds import equal_images, folds_for, nested
from lightning_modules.classification.transfer.machines import Probe, SupportVectors
from lightning_modules.classification.transfer.stages import fit_rows
from tests.classification.few import blobs


def test_shuffled_labels_give_chance():
    x, y = blobs(4, 60)
    y = np.random.default_rng(1).permutation(y)
    for machine in (Probe(C=[0.01, 1.0]), SupportVectors(C=[1.0], gamma=[1.0])):
        found = nested(machine, x, y, None, 5, 3, 0)
        assert abs(found.accuracy.mean() - 0.25) < 3 * np.sqrt(0.25 * 0.75 / len(y))


class Spy(TransformerMixin, BaseEstimator):
    """Remembers which rows it was fitted to; column 0 holds their numbers."""

    seen: ClassVar[list[set[int]]] = []

    def fit(self, X, y=None):
        Spy.seen.append({round(float(number)) for number in X[:, 0]})
        return self

    def transform(self, X):
        return X[:, 1:]


class Spied(SupportVectors):
    def preparation(self, rows):
        return [Spy(), *super().preparation(rows)]


def test_no_row_that_is_judged_is_fitted_to_and_groups_stay_together():
    x, y = blobs(2, 60, apart=0.3)
    groups = np.random.default_rng(0).permutation(np.arange(120) // 3)
    x = np.column_stack([np.arange(120), x]).astype(np.float64)
    Spy.seen = []
    nested(Spied(C=[1.0], gamma=[1.0]), x, y, groups, 4, 3, 0)
    calls = [Spy.seen[place : place + 4] for place in range(0, 16, 4)]  # three inner folds, then the outer fit
    for (_, held), seen in zip(folds_for(y, groups, 4, 0), calls, strict=True):
        outside = set(held.tolist())
        assert all(not rows & outside for rows in seen)
        assert seen[-1] | outside == set(range(120))
        assert not set(groups[list(seen[-1])]) & set(groups[held])
        for inner in seen[:-1]:
            left = seen[-1] - inner
            assert left and not set(groups[list(inner)]) & set(groups[list(left)])


def test_features_chosen_outside_the_folds_score_high_on_noise_and_ours_at_chance():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((80, 2000)).astype(np.float32), np.arange(80) % 2
    wrong = SelectKBest(k=20).fit_transform(x, y)  # it has seen every row's label
    assert nested(Probe(C=[0.1]), wrong, y, None, 5, 3, 0).accuracy.mean() > 0.8

    class Right(Probe):
        def decisions(self, own, labels, others):
            chosen = SelectKBest(k=20).fit(own, labels)
            return super().decisions(chosen.transform(own), labels, chosen.transform(others))

        def fitted(self, own, labels, point):
            chosen = SelectKBest(k=20).fit(own, labels)
            pipeline = super().fitted(chosen.transform(own), labels, point)
            pipeline.steps.insert(0, ("chosen", chosen))
            return pipeline

    assert abs(nested(Right(C=[0.1]), x, y, None, 5, 3, 0).accuracy.mean() - 0.5) < 3 * np.sqrt(0.25 / 80)


def test_two_gaussians_are_told_apart_as_well_as_can_be():
    """Means 0 and (1, 1, 0 …): the Bayes accuracy is Φ(√2 / 2)."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    x = rng.standard_normal((2000, 4)) + y[:, None] * np.array([1.0, 1.0, 0, 0])
    found = nested(Probe(C=[0.01, 0.1]), x, y, None, 5, 3, 0).accuracy.mean()
    assert abs(found - 0.7602) < 3 * np.sqrt(0.7602 * 0.2398 / 2000)


def test_folds_that_cannot_be_are_said():
    y = np.array([0, 0, 0, 1, 1, 1])
    with pytest.raises(UsageError, match="3 images to fit to, fewer than 4 folds"):
        folds_for(y, None, 4, 0)
    with pytest.raises(UsageError, match="1 groups to fit to, fewer than 2"):
        folds_for(y, np.array([0, 0, 0, 1, 1, 2]), 2, 0)


def test_equal_images_are_a_group():
    images = np.random.default_rng(0).integers(0, 17, (6, 1, 8, 8), np.uint8)
    assert equal_images(images) is None
    twice = np.concatenate([images, images[2:3]])
    assert equal_images(twice).tolist() == [0, 1, 2, 3, 4, 5, 2]


class Data:
    """Five training and three validation images of two classes, labels and no images."""

    splits: ClassVar = {"train": Split(None, np.array([0, 1, 0, 1, 1])), "val": Split(None, np.array([0, 1, 1]))}
    positive: int | None = 1

    def groups(self, split):
        return None


def test_no_validation_image_is_fitted_to_where_a_threshold_is_read_from_it():
    """And a mirrored copy belongs with its original."""
    features = {"train": np.arange(5)[:, None], "val": np.arange(5, 8)[:, None], "test": np.zeros((1, 1))}
    features["train_mirrored"] = features["train"] + 100
    data = Data()
    rows, with_val = fit_rows(data, features)
    assert not with_val and rows.x[:, 0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert rows.groups[:5].tolist() == rows.groups[5:].tolist() and rows.y[:5].tolist() == rows.y[5:].tolist()
    data.positive = None
    rows, with_val = fit_rows(data, features)
    assert with_val and len(set(rows.groups)) == 8 and rows.y.tolist() == [0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1]
