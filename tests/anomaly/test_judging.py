"""Areas, thresholds, scores and baselines against their definitions."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

from datamodules.spec import ImageSpec
from lightning_modules.anomaly.baselines import Baselines
from lightning_modules.anomaly.judging import (
    areas,
    at_threshold,
    auc,
    auc_within,
    correlation,
    quantile_threshold,
    youden_threshold,
)
from lightning_modules.anomaly.likelihoods import Bernoulli, Discretised, make_likelihood
from lightning_modules.anomaly.scores import (
    SCORES,
    TrainingLatents,
    decibels,
    image_scores,
    own_entropy,
    png_bits,
    score_names,
    similarity,
)
from lightning_modules.anomaly.vae import VAE


def test_the_area_counts_pairs_and_half_of_the_ties():
    rng = np.random.default_rng(0)
    scores, anomalous = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[anomalous] for b in scores[~anomalous]]
    assert auc(anomalous, scores) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert math.isnan(auc(np.ones(3, bool), np.arange(3.0)))


def test_an_average_precision_stands_beside_its_base_rate():
    rng = np.random.default_rng(0)
    anomalous, scores = rng.random(20_000) < 0.9, rng.random(20_000)
    found = areas(anomalous, scores)
    assert found["auc_pr"] == pytest.approx(found["prevalence"], abs=0.01) and found["prevalence"] > 0.88
    assert found["auc_pr_normal"] == pytest.approx(1 - found["prevalence"], abs=0.01)


@pytest.mark.parametrize("items", [36, 135, 600])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("ties", [False, True])
def test_a_quantile_keeps_its_promise_on_validation_images(items, quantile, ties):
    scores = np.random.default_rng(items).random(items)
    scores = np.round(scores, 1) if ties else scores
    threshold = quantile_threshold(scores, quantile)
    assert threshold == np.quantile(scores, quantile, method="higher") and threshold in scores
    assert (scores > threshold).mean() <= 1 - quantile


def test_youdens_threshold_is_the_best_of_all():
    rng = np.random.default_rng(3)
    normal, anomalies = rng.integers(0, 8, 40).astype(float), rng.integers(3, 12, 30).astype(float)
    threshold = youden_threshold(normal, anomalies)
    both, anomalous = np.concatenate([normal, anomalies]), np.repeat([False, True], [40, 30])
    best = max(at_threshold(anomalous, both, cut)["balanced_accuracy"] for cut in [both.min() - 1, *both])
    assert at_threshold(anomalous, both, threshold)["balanced_accuracy"] == pytest.approx(best)
    assert math.isfinite(youden_threshold(np.array([1.0]), np.array([0.0])))


def test_within_bins_of_contrast_a_shortcut_is_worth_nothing():
    rng = np.random.default_rng(0)
    anomalous = rng.random(4000) < 0.5
    contrast = rng.normal(size=4000) + anomalous
    assert auc(anomalous, contrast) > 0.7 and auc_within(anomalous, contrast, contrast) < 0.6
    real = contrast + 3 * anomalous
    assert auc_within(anomalous, real, contrast) > 0.95
    assert correlation(contrast, contrast) == pytest.approx(1) and correlation(np.ones(4), np.arange(4)) == 0
    assert math.isnan(auc_within(np.arange(10) > 4, np.arange(10.0), np.arange(10) // 5))


# Scores


def test_excess_is_a_divergence():
    x, outputs = torch.rand(4, 1, 5, 5, dtype=torch.float64), torch.randn(4, 1, 5, 5, dtype=torch.float64)
    excess = -Bernoulli().log_prob(x, outputs) - own_entropy(x)
    assert (excess > 0).all()
    itself = -Bernoulli().log_prob(x, x.logit()) - own_entropy(x)
    torch.testing.assert_close(itself, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-10)
    binary = torch.randint(0, 2, (2, 1, 3, 3)).double()
    assert not own_entropy(binary).any()


def test_psnr_and_ssim_are_of_each_image():
    x = torch.rand(3, 1, 14, 15)
    other = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    expected = [-10 * math.log10((a - b).square().mean()) for a, b in zip(x, other, strict=True)]
    torch.testing.assert_close(decibels(x, other), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert decibels(x, x).tolist() == [100] * 3
    for side in (2, 5, 8, 10, 14):
        part = x[..., :side, :side]
        torch.testing.assert_close(similarity(part, part), torch.ones(3), rtol=0, atol=1e-4)
    for a, b, ours in zip(x.double(), other.double(), similarity(x.double(), other.double()), strict=True):
        assert structural_similarity(a[0].numpy(), b[0].numpy()) == pytest.approx(ours.item(), abs=1e-5)


def structural_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM's definition (Wang et al. 2004, equation 13), a Gaussian window 11 wide, edges reflected."""
    window = partial(gaussian_filter, sigma=1.5, radius=5, mode="mirror")
    means, squares = (window(a), window(b)), (window(a * a), window(b * b))
    variances = [square - mean**2 for mean, square in zip(means, squares, strict=True)]
    together = window(a * b) - means[0] * means[1]
    above = (2 * means[0] * means[1] + 0.01**2) * (2 * together + 0.03**2)
    below = (means[0] ** 2 + means[1] ** 2 + 0.01**2) * (sum(variances) + 0.03**2)
    return (above / below).mean()


def test_a_flat_image_takes_few_bits():
    flat, noisy = np.full((3, 16, 16), 7, np.uint8), np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    assert 0 < png_bits(flat) < png_bits(noisy) and png_bits(flat[:1]) % 8 == 0


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "discretised"])
def test_every_score_is_of_each_image(kind):
    network, likelihood = VAE(ImageSpec(1, 9, 8, 17), latent=3, hidden=8), make_likelihood(kind, 17)
    images = torch.randint(0, 17, (5, 1, 9, 8), dtype=torch.uint8)
    latents = TrainingLatents(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))
    found = image_scores(network, likelihood, latents, images, samples=4)
    assert [name for name in SCORES if name in found] == score_names(likelihood)
    assert all(value.shape[:1] == (5,) and value.isfinite().all() for value in found.values())
    x, (outputs, mean, _) = images / 16, network(images)
    expected = likelihood.mean(outputs)
    torch.testing.assert_close(found["mse"], (x - expected).square().sum((1, 2, 3)))
    torch.testing.assert_close(found["mean"], mean)
    if isinstance(likelihood, Discretised):
        bits = torch.tensor([png_bits(image) for image in images.numpy()])
        torch.testing.assert_close(found["complexity_corrected"], found["iwae"] / math.log(2) - bits)
    again = image_scores(network, likelihood, latents, images, samples=4)
    assert all(torch.equal(value, again[name]) for name, value in found.items()), "the same samples every time"


def test_latent_distances():
    means = np.random.default_rng(0).normal(size=(50, 2)) * [1, 10]
    latents, asked = TrainingLatents(means), np.array([[1.0, 3.0], [0.0, 20.0]])
    away = asked - means.mean(0)
    inverse = np.linalg.inv(np.cov(means.T) + 1e-6 * np.eye(2))
    np.testing.assert_allclose(latents.mahalanobis(asked), [np.sqrt(row @ inverse @ row) for row in away])
    near = np.sort(np.linalg.norm(asked[:, None] - means, axis=2), 1)[:, :5].mean(1)
    np.testing.assert_allclose(latents.knn(asked), near)
    single = TrainingLatents(means[:, :1])
    assert single.mahalanobis(asked[:, :1]).shape == (2,)


def test_baselines_are_what_they_say():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 17, (n, 1, 5, 4), np.uint8) for n in (60, 12))
    made = Baselines(train, 17)
    found = made.scores(test)
    assert made.components == [8, 16] and all(value.shape == (12,) for value in found.values())
    x, y = train.reshape(60, -1) / 16, test.reshape(12, -1) / 16
    for k in (8, 16):
        pca = PCA(k, svd_solver="full").fit(x)
        residual = np.square(y - pca.inverse_transform(pca.transform(y))).sum(1)
        np.testing.assert_allclose(found[f"pca_{k}"], residual, atol=1e-10)
    np.testing.assert_allclose(found["knn_1"], np.linalg.norm(y[:, None] - x, axis=2).min(1))
    np.testing.assert_allclose(found["flatness"], -y.std(1))
    np.testing.assert_allclose(found["brightness"], abs(y.mean(1) - x.mean()))
    assert "pca_8" not in Baselines(train[:5], 17).scores(test), "five images have no eight directions"
