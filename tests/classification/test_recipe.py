"""What a recipe is made of: parameter groups, the schedule, early sizes, views."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, Classification
from lightning_modules.classification.views import view_logits
from lightning_modules.schedules import constant, one_cycle, warmup_linear
from reporting.load import load_run
from tests.conftest import run_here

SPEC = ImageSpec(1, 8, 8, 17, 10)
SMALL = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true", "patience=null"]


def module(**settings) -> Classification:
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=0.1)  # noqa: E731
    return Classification(CNN(SPEC, filters=2, depth=3), sgd, constant, **settings)


def test_weight_decay_is_for_kernels_and_only_norm_biases_have_their_own_rate():
    made = module(norm_bias_lr=8.0)
    made.scheduled = lambda optimizer: {"optimizer": optimizer}
    kernels, vectors, norm_biases = made.configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in (kernels, vectors, norm_biases)] == [0.1, 0.0, 0.0]
    assert [group["lr"] for group in (kernels, vectors, norm_biases)] == [0.5, 0.5, 4.0]
    assert [p.ndim for p in kernels["params"]] == [4, 4, 4, 2]
    assert len(vectors["params"]) == 4 and any(p is made.network.head.bias for p in vectors["params"])
    assert [id(p) for p in norm_biases["params"]] == [id(layer[1].bias) for layer in made.network.layers]


def test_warmup_linear_goes_up_then_down_in_straight_lines():
    parameters = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 8.0}]
    optimizer = torch.optim.SGD(parameters, lr=2.0)
    schedule, found = warmup_linear(optimizer, 10, warmup=0.4, first=0.5, last=0.1), []
    for _ in range(11):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = np.array([0.5, 0.625, 0.75, 0.875, 1, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])
    np.testing.assert_allclose(found, np.stack([2 * expected, 8 * expected], 1))
    with pytest.raises(ValueError, match=r"scheduler\.warmup is 1"):
        warmup_linear(optimizer, 10, warmup=1, first=0, last=0)


def test_one_cycle_leaves_a_group_its_multiple_of_the_rate():
    parameters = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 8.0}]
    optimizer = torch.optim.SGD(parameters, lr=2.0)
    schedule, found = one_cycle(optimizer, 10, max_lr=2.0, pct_start=0.3), []
    for _ in range(10):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert max(usual for usual, _ in found) == pytest.approx(2)
    np.testing.assert_allclose(*np.transpose([[4 * usual, own] for usual, own in found]))


def test_training_begins_small_and_ends_at_full_size(tmp_path, monkeypatch):
    seen, forward = [], CNN.forward

    def noting(self, images):
        seen.append((self.training, *images.shape[2:]))
        return forward(self, images)

    monkeypatch.setattr(CNN, "forward", noting)
    words = ["task.module.early_size=5", "task.module.early_part=0.4", "trainer.max_steps=10", "stages=[fit]"]
    run_here([*SMALL, *words], tmp_path)
    training = [size for trained, *size in seen if trained]
    assert training == [[5, 5]] * 4 + [[8, 8]] * 6
    assert all(size == [8, 8] for trained, *size in seen if not trained)


def test_views_are_six_passes_with_their_weights():
    network = CNN(SPEC, filters=3, depth=3).eval()
    images = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    with torch.no_grad():
        expected = sum(
            weight * (network(view) + network(view.flip(3))) / 2
            for weight, view in [(0.5, images.float()), (0.25, padded[..., :8, :8]), (0.25, padded[..., 2:, 2:])]
        )
        torch.testing.assert_close(view_logits(network, images), expected)


def test_tested_with_and_without_views(tmp_path):
    run_here([*SMALL, "task.module.tta=true", "trainer.max_steps=20", "stages=[fit,test]"], tmp_path)
    metrics, kept = json.loads((tmp_path / "metrics.json").read_text()), np.load(tmp_path / "predictions.npz")
    for name in ("accuracy", "accuracy_tta"):
        predicted = kept["probabilities" + name.removeprefix("accuracy")].argmax(1)
        assert metrics[f"test/{name}"] == pytest.approx((predicted == kept["label"]).mean(), rel=1e-6)
    np.testing.assert_allclose(kept["probabilities"].sum(1), 1, rtol=1e-5)


def test_label_smoothing_is_trained_on_but_not_reported(tmp_path):
    words = [*SMALL, "stages=[fit]", "trainer.max_steps=1", "optimizer.lr=0.0", "trainer.log_every_n_steps=1"]
    found = []
    for smoothing in (0.0, 0.5):
        run_here([*words, f"task.module.label_smoothing={smoothing}"], tmp_path / str(smoothing))
        rows = list(csv.DictReader((tmp_path / str(smoothing) / "metrics.csv").open()))
        found.append({key: value for row in rows for key, value in row.items() if value})
    assert (
        found[0]["train/loss"] == found[1]["train/loss"] and found[0]["train/loss_step"] != found[1]["train/loss_step"]
    )


def test_whitened_weights_begin_a_run_but_not_its_continuation(tmp_path):
    words = [*SMALL, "stages=[fit]", "task.module.initialisation=whitened", "optimizer.lr=0.0", "trainer.max_steps=2"]
    run_here([*words, "scheduler=constant"], tmp_path)
    first = load_run(tmp_path).network.layers[0][0].weight
    assert torch.equal(first[2:4], -first[:2])
    run_here(["stages=[fit]", f"ckpt_path={tmp_path}", "trainer.max_steps=4"], tmp_path)
    assert torch.equal(load_run(tmp_path).network.layers[0][0].weight, first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"initialisation": "zero"}, "initialisation is zero: choose default or whitened"),
        ({"early_part": 0.5, "early_size": 1}, "early_size is 1, but the network takes images of at least 2×2"),
    ],
)
def test_impossible_settings_are_one_sentence(settings, message):
    with pytest.raises(UsageError, match=message):
        module(**settings)
