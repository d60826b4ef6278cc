"""Features, and what is learned from them: nothing leaks, nothing is kept as code, the head equals the probe."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import SelectKBest
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC

from datamodules.errors import UsageError
from datamodules.regions import REGIONS, keep_region
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, ViT
from lightning_modules.classification.groups import balanced_weights, parameter_groups
from lightning_modules.classification.networks import EfficientNetLite
from lightning_modules.classification.transfer.features import (
    FeatureSettings,
    compute_features,
    depths_for,
    split_features,
)
from lightning_modules.classification.transfer.folds import equal_images, folds_for, nested, predicted, search
from lightning_modules.classification.transfer.kept_svm import KeptSVM, find_temperature, probabilities
from lightning_modules.classification.transfer.machines import (
    Probe,
    SupportVectors,
    VarianceSVC,
    gamma_of,
    linear_head,
)
from lightning_modules.classification.transfer.shortcuts import fires, verdict
from reporting.load import load_run
from reporting.predictions import read_predictions
from tests.conftest import run_here

GREY = ImageSpec(1, 8, 8, 17, classes=10)


def blobs(classes: int, each: int, columns: int = 6, apart: float = 1.0, seed: int = 0):
    """Gaussian classes, the centres `apart` in every column."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.standard_normal((classes, columns))
    y = np.repeat(np.arange(classes), each)
    return (centres[y] + rng.standard_normal((len(y), columns))).astype(np.float32), y


# Features


@pytest.fixture(scope="module")
def network() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite(GREY, size=32, weights="none").eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 17, (6, 1, 8, 8), np.uint8)


def test_an_images_features_do_not_depend_on_its_neighbours(network, images):
    network.train()
    asked = (network, images, [10, 15, "head"], "mean", "cpu", "32-true")
    whole = compute_features(*asked, batch_size=6)
    assert network.training and whole.shape == (6, 112 + 320 + 1280) and whole.dtype == np.float32
    for size in (1, 4):
        np.testing.assert_allclose(compute_features(*asked, batch_size=size), whole, rtol=1e-4, atol=1e-5)
    network.eval()


def kept_in(folder) -> int:
    return len([place for place in folder.iterdir() if place.is_dir()])


def test_all_that_features_depend_on_is_in_their_key(network, images, tmp_path):
    usual = FeatureSettings(layers=[0])
    small = {"train": images[:2], "test": images[2:4]}

    def ask(of=network, parts=small, settings=usual, **more):
        split_features(of, parts, settings, tmp_path, **more)
        return kept_in(tmp_path)

    assert ask() == 1 and ask() == 1
    assert ask(settings=FeatureSettings(layers=[1])) == 2
    assert ask(settings=replace(usual, pool="none")) == 3
    assert ask(settings=replace(usual, flip=True)) == 4
    assert ask(precision="bf16-mixed") == 5
    assert ask(parts={"train": images[1::-1], "test": images[2:4]}) == 6  # other order
    assert ask(parts={"train": images[:1], "test": images[2:4]}) == 7  # as per_class and classes make
    other = EfficientNetLite(GREY, size=33, weights="none").eval()
    other.load_state_dict(network.state_dict())
    assert ask(of=other) == 8
    with torch.no_grad():
        other.backbone.stem.norm.running_mean[0] += 1
    assert ask(of=other) == 9
    found = split_features(network, small, replace(usual, flip=True), tmp_path)
    np.testing.assert_array_equal(
        found["train_mirrored"],
        compute_features(network, small["train"][..., ::-1].copy(), [0], "mean", "cpu", "32-true", 100),
    )


def test_a_cut_file_of_features_is_named_and_made_anew(network, images, tmp_path, caplog):
    parts = {"train": images[:2]}
    expected = np.array(split_features(network, parts, FeatureSettings([0]), tmp_path)["train"])
    (file,) = tmp_path.rglob("train.npy")
    file.write_bytes(file.read_bytes()[:-4])
    found = split_features(network, parts, FeatureSettings([0]), tmp_path)["train"]
    assert "train.npy" in caplog.text
    np.testing.assert_array_equal(found, expected)


def test_depths_that_are_not_there_are_said(images):
    spec = ImageSpec(3, 8, 8, 256, classes=2)
    with pytest.raises(UsageError, match="names no maps"):
        depths_for(ViT(spec, patch=2, width=8, depth=1, heads=2, mlp=2, dropout=0.0), None)
    cnn = CNN(GREY, filters=4, depth=3)
    assert depths_for(cnn, None) == ["head"]
    with pytest.raises(UsageError, match="depths are 0 to 2, head"):
        compute_features(cnn, images, [3], "mean", "cpu", "32-true", 10)
    with pytest.raises(UsageError, match="list of layers"):
        depths_for(cnn, ["tail"])
    with pytest.raises(UsageError, match="choose mean or none"):
        FeatureSettings(pool="max")


# The head from the probe


@pytest.mark.parametrize("classes", [2, 10])
def test_a_head_from_the_probe_gives_the_probes_logits(classes, images):
    spec = ImageSpec(1, 8, 8, 17, classes=classes)
    network = EfficientNetLite(spec, size=32, weights="none", layers=[10, 15, "head"]).eval()
    images = np.random.default_rng(0).integers(0, 17, (40, 1, 8, 8), np.uint8)
    features = compute_features(network, images, network.layers, "mean", "cpu", "32-true", 40)
    labels = np.arange(40) % classes
    pipeline = Probe().fitted(features, labels, {"C": 0.01})
    weight, bias = linear_head(pipeline)
    network.set_head_(torch.from_numpy(weight), torch.from_numpy(bias))
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).double().numpy()
    expected = pipeline.decision_function(features)
    if classes == 2:
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)
        np.testing.assert_allclose(logits.sum(1), 0, atol=1e-4)
    else:
        np.testing.assert_allclose(logits, expected, atol=1e-4)


# Folds


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


def test_equal_images_are_a_group(images):
    assert equal_images(images) is None
    twice = np.concatenate([images, images[2:3]])
    assert equal_images(twice).tolist() == [0, 1, 2, 3, 4, 5, 2]


# Support vectors


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("pca", [None, 3])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_the_precomputed_search_is_the_plain_one(classes, pca, kernel):
    x, y = blobs(classes, 30, apart=0.7)
    machine = SupportVectors(C=[0.3, 3.0], gamma=[0.25, 1.0], pca=pca, kernel=kernel, class_weight="balanced")
    fit, held = folds_for(y, None, 3, 0)[0]
    own = machine.decisions(x[fit], y[fit], x[held])
    for point, decisions in zip(machine.grid(), own, strict=True):
        plain = machine.fitted(x[fit], y[fit], point)
        np.testing.assert_allclose(decisions, plain.decision_function(x[held]), atol=1e-3)
        np.testing.assert_array_equal(predicted(decisions), plain.predict(x[held]))
    found = search(machine, x, y, None, 3, 0)
    folds = folds_for(y, None, 3, 0)
    best = [balanced_accuracy_score(y[h], machine.fitted(x[f], y[f], found.point).predict(x[h])) for f, h in folds]
    assert np.mean(best) == pytest.approx(found.scores.mean(1).max())


def test_gamma_is_by_the_variance_of_what_is_fitted():
    x, y = blobs(2, 30)
    machine = VarianceSVC(multiple=0.25).fit(3 * x, y)
    assert machine.gamma == pytest.approx(0.25 / (9 * x.var(0).sum())) == gamma_of(3 * x, 0.25)
    plain = SVC(gamma=1 / x.var(0).sum()).fit(x, y)
    np.testing.assert_allclose(
        VarianceSVC(multiple=1.0).fit(x, y).decision_function(x), plain.decision_function(x), rtol=1e-4
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("pca", [None, 4])
def test_a_kept_svm_decides_as_scikit_learns_does(classes, pca, tmp_path):
    x, y = blobs(classes, 20, apart=0.5)
    machine = SupportVectors(pca=pca)
    pipeline = machine.fitted(x, y + 5, {"C": 3.0, "gamma": 1.0})
    KeptSVM.of(pipeline, 0.7).save(tmp_path)
    kept = KeptSVM.load(tmp_path)
    others = blobs(classes, 50, apart=0.5, seed=1)[0]
    np.testing.assert_allclose(kept.decisions(others), pipeline.decision_function(others), atol=1e-6)
    np.testing.assert_array_equal(kept.predict(others), pipeline.predict(others))
    assert (kept.classes[kept.probabilities(others).argmax(1)] == kept.predict(others)).all()


def test_a_three_way_tie_of_votes_is_decided_as_scikit_learn_does(tmp_path):
    """Three classes, each winning one pair: the votes of many points between them are 1, 1, 1."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)), np.arange(60) % 3
    pipeline = SupportVectors().fitted(x, y, {"C": 30.0, "gamma": 1.0})
    kept, others = KeptSVM.of(pipeline, 1.0), rng.standard_normal((4000, 2))
    votes = np.round(kept.decisions(others))
    tied = (votes == 1).all(1)
    assert tied.sum() > 5
    np.testing.assert_array_equal(kept.predict(others[tied]), pipeline.predict(others[tied]))


def test_a_file_with_objects_in_it_is_refused(tmp_path):
    x, y = blobs(2, 10)
    kept = KeptSVM.of(SupportVectors().fitted(x, y, {"C": 1.0, "gamma": 1.0}), 1.0)._asdict()
    np.savez(tmp_path / "svm.npz", **(kept | {"classes": np.array([{}, {}], dtype=object)}))
    with pytest.raises(UsageError, match="damaged, or no file of an SVM"):
        KeptSVM.load(tmp_path)
    (tmp_path / "svm.npz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged, or no file of an SVM"):
        KeptSVM.load(tmp_path)


def test_a_wide_kernel_is_a_linear_one():
    """Keerthi & Lin 2003: gamma → 0 with C · gamma fixed; K = 1 − γ‖x − x′‖² + …, of which 2γ x·x′ is left."""
    x, y = blobs(2, 40, apart=0.5)
    x = x.astype(np.float64)
    narrow = SVC(kernel="linear", C=0.1, tol=1e-9).fit(x, y).decision_function(x)
    gamma = 1e-4
    wide = SVC(kernel="rbf", gamma=gamma, C=0.1 / (2 * gamma), tol=1e-9).fit(x, y).decision_function(x)
    np.testing.assert_allclose(wide, narrow, atol=0.02)


def test_the_temperature_mends_what_is_too_sure():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random(4000)[:, None] > shares.cumsum(1)).sum(1)
    assert find_temperature(5 * logits, labels) == pytest.approx(5, rel=0.1)
    binary = (rng.random(4000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(int)
    assert find_temperature(3 * logits[:, 0], binary) == pytest.approx(3, rel=0.15)
    assert ((probabilities(logits[:, 0], 2.0)[:, 1] > 0.5) == (logits[:, 0] > 0)).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SupportVectors(C=[]), r"svm\.C is \[\]"),
        (lambda: SupportVectors(gamma=[0.0]), r"svm\.gamma is \[0\.0\].*above 0"),
        (lambda: Probe(C=[-1.0]), r"probe\.C is \[-1\.0\]"),
        (lambda: Probe(folds=1), r"probe\.folds is 1"),
        (lambda: SupportVectors(kernel="poly"), "choose rbf or linear"),
        (lambda: SupportVectors(pca=1.5), "must be a number of components"),
        (lambda: SupportVectors(pca=90).preparation(60), "svm.pca is 90, but a fold has 60 images"),
        (lambda: SupportVectors().preparation(25_000), r"25,000² numbers .*hours.*stages=\[features,probe\]"),
    ],
)
def test_what_cannot_be_searched_is_said(make, said):
    with pytest.raises(UsageError, match=said):
        make()


# Groups and weights of a training


def test_parameters_are_grouped_by_name_and_every_trained_one_is_in_one():
    network = EfficientNetLite(GREY, size=32, weights="none")
    groups = {group["name"]: group for group in parameter_groups(network, 0.3, 2.0)}
    assert [g["multiple"] for g in groups.values()] == [1.0, 1.0, 2.0, 0.3, 0.3, 0.6]
    assert sum(p.numel() for g in groups.values() for p in g["params"]) == sum(p.numel() for p in network.parameters())
    assert [p.shape for p in groups["kernels"]["params"]] == [(10, 1280)]
    assert all("weight_decay" in g for name, g in groups.items() if not name.endswith("kernels"))
    frozen = EfficientNetLite(GREY, size=32, weights="none", train="head")
    assert sum(len(g["params"]) for g in parameter_groups(frozen, 0.3, 1.0)) == 2
    plain = parameter_groups(CNN(GREY, filters=4, depth=3), 0.3, 2.0)
    assert [g["name"] for g in plain] == ["kernels", "vectors", "norm biases"]


def test_class_weights_are_the_loss_of_classes_made_equally_large():
    torch.manual_seed(0)
    logits = torch.randn(40, 2, dtype=torch.float64)
    labels = torch.tensor([0] * 10 + [1] * 30)
    weights = balanced_weights(labels.numpy(), 2)
    torch.testing.assert_close(weights, torch.tensor([2.0, 2 / 3]))
    weighed = torch.nn.functional.cross_entropy(logits, labels, weights.double())
    rows = torch.cat([torch.arange(10).repeat(3), torch.arange(10, 40)])
    torch.testing.assert_close(
        weighed, torch.nn.functional.cross_entropy(logits[rows], labels[rows]), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(UsageError, match="class 1 has none"):
        balanced_weights(np.zeros(3, int), 2)


# Regions


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_keeps_its_pixels_and_greys_the_rest(region):
    images = np.full((2, 1, 128, 128), 200, np.uint8)
    kept = (keep_region(images, region) == 200).mean()
    assert kept == pytest.approx({"whole": 1, "centre": 0.56, "no_centre": 0.44, "border": 0.34}[region], abs=0.02)
    assert set(np.unique(keep_region(images, region))) <= {200, 127}
    if region != "whole":
        with pytest.raises(UsageError, match="needs images of 16 pixels"):
            keep_region(images[:, :, :8, :8], region)


def test_the_verdict_fires_only_when_it_may():
    def figures(whole, low, no_centre, border):
        names = ("whole", "no_centre", "border")
        found = {f"regions/{n}/balanced_accuracy": v for n, v in zip(names, (whole, no_centre, border), strict=True)}
        return found | {"regions/whole/balanced_accuracy/low": low}

    assert fires(figures(0.95, 0.93, 0.91, 0.6), 2, "no_centre") and not fires(
        figures(0.95, 0.93, 0.9, 0.6), 2, "no_centre"
    )
    assert "outer 9.4 %" in verdict(figures(0.95, 0.93, 0.94, 0.94), 2)
    assert "needs the centre" in verdict(figures(0.95, 0.93, 0.6, 0.6), 2)
    assert "Nothing is learned" in verdict(figures(0.52, 0.47, 0.52, 0.52), 2)


WORDS = ["task=classification", "trainer.precision=32-true", "probe.C=[0.01]", "data=digits_marked"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.mark=corner"], "outer 9.4 % of the picture alone"),
        (["data.mark=centre"], "needs the centre of the picture"),
        (["data.shuffled=true"], "Nothing is learned here"),
    ],
)
def test_a_planted_mark_is_found_where_it_stands(words, said, tmp_path):
    """On features of a random network, which a mark changes as it changes any other's."""
    folder = tmp_path / "run"
    stages = "stages=[regions,report]"
    run_here([*WORDS, *words, "model=covid_cnn", "model.widths=[16,32]", "features.layers=[0,1]",
              "features.pool=none", stages, f"paths.cache={tmp_path / 'cache'}"], folder)  # fmt: skip
    assert said in (folder / "report.md").read_text()


# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    run_here(["task=classification", "model=covid_cnn", "model.widths=[8,16]", "data=digits",
              "trainer.precision=32-true", "stages=[features,probe,svm,report]", "svm.C=[3.0,10.0]",
              "svm.gamma=[0.25,1.0]", "probe.C=[0.1,1.0]", "svm.folds=3", "svm.outer_folds=3",
              "probe.folds=3", "probe.nested=false", f"paths.cache={folder / 'cache'}"], folder / "run")  # fmt: skip
    return folder / "run"


def test_a_run_of_stages_alone_leaves_figures_a_grid_and_a_report(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["svm/test/accuracy"] > 0.8 and metrics["svm/disagreements"] == 0
    assert metrics["svm/cv/images"] == 1797 and 0 < metrics["svm/cv/accuracy_sd"] < 0.1
    rows = list(csv.DictReader((run / "cv_results.csv").open()))
    points = [(float(row["C"]), float(row["gamma"])) for row in rows]
    assert sorted(points) == [(3.0, 0.25), (3.0, 1.0), (10.0, 0.25), (10.0, 1.0)]
    kept = read_predictions(run, "svm_predictions.npz")
    assert (kept["probabilities"].argmax(1) == kept["label"]).mean() == pytest.approx(metrics["svm/test/accuracy"])
    report = (run / "report.md").read_text()
    assert "Support vectors on features" in report and "Logistic regression on features" in report


def test_a_trained_head_is_all_that_changed_and_the_run_comes_back(tmp_path):
    words = ["task=classification", "model=efficientnet_lite0", "model.size=32", "model.weights=none", "debug=quick",
             "model.train=head", "model.frozen_norms=true", "model.head_init=probe", "features.layers=[head]",
             "probe.C=[0.01]", "probe.folds=2", "trainer.precision=32-true",
             f"paths.cache={tmp_path / 'cache'}"]  # fmt: skip
    run_here(words, tmp_path / "run")
    network, _, _ = load_run(tmp_path / "run")
    torch.manual_seed(0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["parameters"] == 1280 * 10 + 10
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.running_mean == 0).all() and (module.running_var == 1).all()
            assert module.num_batches_tracked == 0
    with pytest.raises(UsageError, match=r"features\.layers=\[head\]"):
        run_here([word for word in words if not word.startswith("features")], tmp_path / "other")
