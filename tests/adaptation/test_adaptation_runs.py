"""Whole runs: what choosing may depend on, exact resume, the ladder in the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.domains.digits_m import DigitsM
from datamodules.domains.pairs import PairDataModule
from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.adaptation import DANN, Adaptation, TwoDomains
from reporting.load import read_checkpoint
from reporting.predictions import read_predictions
from reporting.report import ComparedRun
from tests.conftest import run_here

SMALL = [
    "task=adaptation", "trainer.max_epochs=2", "trainer.limit_train_batches=3", "data.batch_size=8",
    "trainer.precision=32-true",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return f"paths.cache={tmp_path_factory.mktemp('cache')}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Path:
    folder = tmp_path_factory.mktemp("run")
    published = "published=[{source: a book, name: X, data: digits_m, split: test, figures: {accuracy: 0.7}}]"
    words = [*SMALL, cache, "model.norm=domain", "task.module.embedded_items=8", "task.module.oracle=true", published]
    run_here(words, folder)
    return folder


def weights(folder: Path, name: str = "best") -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_target_labels_change_neither_weights_nor_choice(cache, tmp_path, monkeypatch):
    words = [*SMALL, cache, "stages=[fit]"]
    run_here(words, tmp_path / "true")
    load = DigitsM.load_splits

    def shuffled(self):
        splits, rng = load(self), np.random.default_rng(0)
        for name in ("target_train", "target_val"):
            splits[name] = splits[name]._replace(labels=rng.permutation(splits[name].labels))
        return splits

    monkeypatch.setattr(DigitsM, "load_splits", shuffled)
    run_here(words, tmp_path / "shuffled")
    for name in ("best", "last"):
        assert same(weights(tmp_path / "true", name), weights(tmp_path / "shuffled", name))
    figures = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("true", "shuffled")]
    chosen = [{key: value for key, value in found.items() if not key.startswith("seconds")} for found in figures]
    assert chosen[0] == chosen[1]


def test_peeking_changes_nothing_but_its_own_figures_and_nobody_else_asks_for_labels(run, cache, tmp_path, monkeypatch):
    def refused(self, kind, peeking=False):
        raise AssertionError(kind)

    monkeypatch.setattr(PairDataModule, "target_labels", refused)
    with pytest.raises(AssertionError, match="train"):
        run_here([*SMALL, cache, "model=target_trained", "stages=[fit]"], tmp_path / "upper")
    run_here([*SMALL, cache, "model.norm=domain", "stages=[fit,test]"], tmp_path)
    assert same(weights(run), weights(tmp_path))
    peeked, blind = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path))
    assert "val/accuracy_oracle" in peeked and "val/accuracy_oracle" not in blind
    assert not (tmp_path / "checkpoints" / "oracle.ckpt").exists()
    assert all(peeked[name] == value for name, value in blind.items() if name.startswith(("val/", "test/")))
    assert read_checkpoint(run / "checkpoints" / "oracle.ckpt")["oracle_best"] >= peeked["val/accuracy_oracle"]


def test_the_best_checkpoint_is_the_last_one(run):
    assert same(weights(run), weights(run, "last"))


def test_a_run_goes_on_from_the_middle_of_an_epoch_bit_for_bit(cache, tmp_path, monkeypatch):
    words = [*SMALL, cache, "stages=[fit]", "model.dropout=0.2", "model.norm=domain"]
    words += ["trainer.limit_train_batches=5", "trainer.val_check_interval=2"]
    run_here(words, tmp_path / "whole")
    seen, measure = [], Adaptation.measure_training

    def killed(self, batch):
        seen.append(batch)
        if len(seen) > 8:  # the fourth batch of the second epoch; the last checkpoint is of the second
            raise KeyboardInterrupt
        return measure(self, batch)

    monkeypatch.setattr(Adaptation, "measure_training", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_here(words, tmp_path / "cut")
    monkeypatch.setattr(Adaptation, "measure_training", measure)
    assert read_checkpoint(tmp_path / "cut/checkpoints/last.ckpt")["loader_place"] == {"batches_done": 2}
    run_here([*words, f"ckpt_path={tmp_path / 'cut'}"], tmp_path / "cut")
    assert same(weights(tmp_path / "whole", "last"), weights(tmp_path / "cut", "last"))
    states = [read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "cut")]
    for one, other in zip(*(state["optimizer_states"][0]["state"].values() for state in states), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
    kept = ("val/accuracy_source", "train/domain_loss", "train/lambda")
    assert all(states[0]["metrics"][name] == states[1]["metrics"][name] for name in kept)


def test_figures_agree_with_the_predictions_and_the_bounds(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), read_predictions(run)
    for ending in ("", "_source"):
        right = kept[f"probabilities{ending}"].argmax(1) == kept[f"label{ending}"]
        assert metrics[f"test/accuracy{ending}"] == pytest.approx(right.mean()) and len(right) == 397
    bounds = read_predictions(run, "bounds.npz")
    for name in ("source_only", "target_trained", "adabn"):
        right = bounds[name].argmax(1) == bounds["label"]
        assert metrics[f"test/{name}_accuracy"] == pytest.approx(right.mean())
    lower, upper = metrics["test/source_only_accuracy"], metrics["test/target_trained_accuracy"]
    if upper > lower:
        assert metrics["test/gap_closed"] == pytest.approx((metrics["test/accuracy"] - lower) / (upper - lower))
    assert 0 <= metrics["test/domain_accuracy"] <= 1 and -2 <= metrics["test/proxy_a_distance"] <= 2
    assert metrics["test/kernel_distance_source"] > metrics["test/kernel_distance_floor"]


def test_bounds_are_trained_once_and_then_kept(run, cache, tmp_path, monkeypatch):
    def again(*_: object, **__: object) -> None:
        raise AssertionError("they are in the cache")

    monkeypatch.setattr("lightning_modules.adaptation.bounds.trained_weights", again)
    run_here([*SMALL, cache, "model.norm=domain", "stages=[bounds]", f"ckpt_path={run}"], tmp_path)
    kept, found = (json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path))
    assert found["test/target_trained_accuracy"] == kept["test/target_trained_accuracy"]
    with pytest.raises(AssertionError, match="they are in the cache"):
        run_here([*SMALL, cache, "stages=[bounds]", f"ckpt_path={run}", "seed=1"], tmp_path / "other")


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for title in (
        "Accuracy on the target", "The two domains", "Confusions on the target", "Classes", "Most confident mistakes",
        "Features", "Where it looks", "Judged without labels", "Curves",
    ):  # fmt: skip
        assert f"## {title}\n" in text
    assert "| X | 70.00% | a book |" in text and "not attainable without labels" in text and "AdaBN" in text
    for name in ("domains", "confusions", "mistakes", "embeddings", "grad_cam", "curves"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data=digits"],
            "need images of at least 16×16, and these are 8×8: choose larger ones, such as data=digits_m",
        ),
        (["data=pair", "data.target=digit"], r"data.target is 'digit' \(did you mean 'digits'"),
        (["data.batch_size=1", "model.norm=joint"], "normalises over a batch, and data.batch_size is 1"),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "trainer.precision=16-mixed needs a GPU"),
        (["stages=[bounds]"], "need a trained network"),
    ],
)
def test_what_cannot_be_is_said(words, said, cache, tmp_path):
    with pytest.raises(UsageError, match=said):
        run_here([*SMALL, cache, *words], tmp_path)


def test_one_domain_is_not_enough():
    run = SimpleNamespace(datamodule=None, config=OmegaConf.create({"choices": {"data": "cifar10"}}))
    with pytest.raises(UsageError, match="An adaptation needs two domains, and data=cifar10 is one"):
        Adaptation(DANN(ImageSpec(3, 16, 16, 256, 4)), None, None).check_stages(run)


def test_criteria_are_ranked_over_runs(tmp_path):
    rng, runs = np.random.default_rng(0), []
    for number in range(8):
        figures = {"test/accuracy": number / 10, "val/entropy": 1 - number / 10, "val/bnm": float(rng.random())}
        runs.append(ComparedRun(f"run {number}", tmp_path, None, figures, {}))
    (section,) = TwoDomains.comparison(runs, tmp_path)
    assert "| entropy | +1.00 (+1.00 … +1.00) | 70.00% |" in section.text and (tmp_path / "selection.png").exists()
    assert "| the best run (by test labels) | | 70.00% |" in section.text
    assert TwoDomains.comparison(runs[:4], tmp_path) == []
    alike = [run._replace(metrics=run.metrics | {"test/accuracy": 0.5}) for run in runs]
    assert TwoDomains.comparison(alike, tmp_path) == [], "nothing to choose among"
