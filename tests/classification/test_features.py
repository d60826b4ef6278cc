"""Features: what they depend on is in their key; a head from the probe gives the probe's logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, EfficientNetLite, ViT
from lightning_modules.classification.transfer.features import (
    FeatureSettings,
    compute_features,
    depths_for,
    split_features,
)
from lightning_modules.classification.transfer.machines import (
    Probe,
    linear_head,
)

GREY = ImageSpec(1, 8, 8, 17, classes=10)


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
