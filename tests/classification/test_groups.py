"""What learns at which rate, and how much each class weighs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, EfficientNetLite, MobileNetV2, ResNet50
from lightning_modules.classification.groups import balanced_weights, parameter_groups
from tests.conftest import run_here

GREY = ImageSpec(1, 8, 8, 17, classes=10)


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


@pytest.mark.parametrize("make", [EfficientNetLite, MobileNetV2, ResNet50])
def test_each_layer_learns_slower_than_the_next(make):
    """Of n layers of the backbone layer i has 0.3 · 0.8^(n − 1 − i); each trained parameter is in one group."""
    with torch.device("meta"):
        network = make(GREY, size=32, weights="none")
    groups = parameter_groups(network, 0.3, 1.0, 0.8)
    numbers = [id(p) for group in groups for p in group["params"]]
    assert sorted(numbers) == sorted(id(p) for p in network.parameters())
    layers = network.layers_in_order()
    rates = [group["multiple"] for group in groups[3::3]]
    assert rates == pytest.approx([0.3 * 0.8**above for above in reversed(range(len(layers)))])
    first, last = next(network.backbone.parameters()), network.layers_in_order()[-1]
    assert any(p is first for p in groups[3]["params"]) and all(p.ndim > 1 for p in groups[-3]["params"])
    assert {id(p) for group in groups[-3:] for p in group["params"]} == {id(p) for p in last.parameters()}
    assert len(layers) == {EfficientNetLite: 18, MobileNetV2: 19, ResNet50: 18}[make]


def test_layer_decay_that_cannot_be_is_said(tmp_path):
    for words, said in [(["task.module.layer_decay=0"], "above 0, and 1 or less"),
                        (["task.module.layer_decay=0.9"], "and this one is none")]:  # fmt: skip
        with pytest.raises(UsageError, match=said):
            run_here(["task=classification", "model.filters=4", "model.depth=3", *words], tmp_path)


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
