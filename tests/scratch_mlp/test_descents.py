"""Runs of the three descents: how many updates each makes, that walking changes nothing, and what the report shows."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from datamodules.errors import UsageError
from datamodules.images.digits import Digits
from datamodules.images.mnist import MNIST
from reporting.load import load_run
from tests.conftest import run_here

SMALL = ["task=scratch_mlp", "model.hidden=[12]", "trainer.max_epochs=2", "optimizer.lr=0.1"]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(("descent", "updates"), [("batch", 2), ("mini_batch", 42), ("stochastic", 2 * 1293)])
def test_updates_are_as_many_as_the_descent_says_and_no_graph_is_built(descent, updates, tmp_path):
    def refuse(tensor):
        raise AssertionError("autograd kept a tensor")

    with saved_tensors_hooks(refuse, refuse):
        run_here([*SMALL, "stages=[fit]", f"task.module.descent={descent}"], tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/updates")
    assert float(rows[-1].split(",")[column]) == updates
    assert metrics(tmp_path)["steps"] == (2 if descent == "batch" else 42)


def test_a_walk_makes_the_updates_of_batches_of_one(tmp_path):
    words = [*SMALL, "stages=[fit]", "trainer.max_epochs=1", "trainer.precision=64-true", "data.test_share=0.8"]
    run_here([*words, "task.module.descent=stochastic", "data.batch_size=50"], tmp_path / "walk")
    run_here([*words, "data.batch_size=1"], tmp_path / "ones")
    walk, ones = (dict(load_run(tmp_path / name).network.named_parameters()) for name in ("walk", "ones"))
    for name, parameter in walk.items():
        assert torch.equal(parameter, ones[name])
    assert metrics(tmp_path / "walk")["train/loss"] == pytest.approx(metrics(tmp_path / "ones")["train/loss"])


def test_the_report_shows_what_an_update_is_worth(tmp_path):
    published = "published=[{source: a book, data: digits, split: test, figures: {accuracy: 0.5}}]"
    run_here([*SMALL, "trainer.max_epochs=5", published], tmp_path)
    text = (tmp_path / "report.md").read_text()
    for title in ("Accuracy", "What an update is worth", "Confusion matrix", "First-layer weights", "Curves"):
        assert f"## {title}" in text
    assert "1,293 images train, 144 validate, 360 test." in text and "| test | 50.00% |  | a book |" in text
    found = json.loads((tmp_path / "updates.json").read_text())
    assert (found["updates"], found["batches"]) == (5, 21)
    losses = {trace["images"]: trace["loss"] for trace in found["traces"] if not trace["variant"]}
    assert set(losses) == {1, 64, 1293} and all(len(loss) == 6 for loss in losses.values())
    assert len({loss[0] for loss in losses.values()}) == 1, "all begin at the same weights"
    assert losses[1293] == sorted(losses[1293], reverse=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.module.descent=minibatch"], "did you mean 'mini_batch'"),
        (["task.module.l2=-1"], "task.module.l2 is -1"),
        (["trainer.precision=bf16-mixed"], "choose 32-true or 64-true"),
        (["trainer.gradient_clip_val=1"], "does not clip gradients"),
        (["data.test_share=1.5"], "data.test_share is 1.5"),
    ],
)
def test_what_cannot_work_is_said(words, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        run_here([*SMALL, *words, "stages=[fit]"], tmp_path)


def test_shares_divide_all_images():
    splits = {}
    for share in (None, 0.3, 0.2, 0.1):
        data = Digits(test_share=share)
        data.prepare_data()
        splits[share] = {name: [image.tobytes() for image in split.images] for name, split in data.splits.items()}
        assert sum(map(len, splits[share].values())) == 1797 and len(splits[share]["val"]) == 144
    assert [len(splits[share]["test"]) for share in (None, 0.3, 0.2, 0.1)] == [360, 539, 359, 180]
    assert set(splits[0.1]["test"]) <= set(splits[0.2]["test"]) <= set(splits[0.3]["test"])
    everything, divided = (sorted(chain(*splits[share].values())) for share in (None, 0.3))
    assert divided == everything, "no image lost, none twice"
    labels = np.concatenate([split.labels for split in data.splits.values()])
    assert len(np.unique(labels)) == 10


def test_the_static_draw_is_not_divided_anew():
    with pytest.raises(UsageError, match=r"data\.test_share divides anew"):
        MNIST("nowhere", "nowhere", test_share=0.1)
