"""Runs of the task: figures, held-out names, the stage attack, defences from a trained model, going on, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.classification.robustness import stage
from lightning_modules.contrastive.comparison import attacked, bootstrap_both, defence_table, difference_table
from lightning_modules.contrastive.distractor import distracted, partners
from reporting.compare import main as compare
from reporting.compare import read_runs
from reporting.load import load_run, read_checkpoint
from reporting.predictions import read_predictions
from tests.conftest import SMALLEST, real_data, run_here

SMALL = ["task=contrastive", *SMALLEST["contrastive"].words_of("tiny_clip"), "trainer.precision=32-true"]
SMALL += ["patience=null", "trainer.max_epochs=2"]
FEW = ["attack.items=30", "attack.batch_size=12", "attack.steps=2", "attack.eps=0.1"]
ALL = "stages=[fit,test,attack,report]"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with mock.patch.object(stage, "ALTERED", 4):
        run_here([*SMALL, *FEW, ALL], folder)
    return folder


@pytest.fixture(scope="module")
def defended(run, tmp_path_factory) -> dict[str, Path]:
    """Two defences, from the same start, one with a report."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("cross_entropy", "tecoa")}
    stages = {"cross_entropy": "stages=[fit,test,attack]", "tecoa": ALL}
    with mock.patch.object(stage, "ALTERED", 1), mock.patch.object(stage, "SURFACES", 1):
        for name, folder in made.items():
            run_here([*SMALL, *FEW, stages[name], f"task.module.defence={name}", f"start={run}"], folder)
    return made


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


# Figures


def test_figures_agree_with_what_is_kept(run):
    metrics, kept = metrics_of(run), read_predictions(run)
    for end, count in {"": 40, "_unseen": 24}.items():
        image, text, fact, label = (kept[f"{name}{end}"] for name in ("image", "text", "fact", "label"))
        assert len(label) == count and np.allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
        assert metrics[f"test/accuracy{end}"] == pytest.approx((kept[f"probabilities{end}"].argmax(1) == label).mean())
        assert ((image @ kept["names"].T).argmax(1) == kept[f"probabilities{end}"].argmax(1)).all()
        for k in (1, 5):
            shares = []
            for asked, answers in ((image, text), (text, image)):
                nearest = np.argsort(-asked @ answers.T, axis=1, kind="stable")[:, :k]
                shares.append((fact[nearest] == fact[:, None]).any(1).mean())
            assert metrics[f"test/recall_at_{k}{end}"] == pytest.approx(np.mean(shares), abs=0.03)


def test_names_held_out_are_those_of_unseen_alone(run):
    kept = read_predictions(run)
    held_out = {10 * (digit % 6) + digit for digit in range(10)}
    assert set(kept["label_unseen"]) <= held_out and not set(kept["label"]) & held_out


def test_the_report_shows_every_part(run):
    page = (run / "report.md").read_text()
    for title in ("Names and retrieval", "Images beside names", "Under attack", "Can the attack be believed?",
                  "Under attack: unseen names", "What the attack does to embeddings", "A distractor"):  # fmt: skip
        assert f"## {title}\n" in page, title
    assert page.count("| Every image has a gradient |") == 2, "of seen and of unseen names"
    assert "among all 60, of which 10 were never trained on" in page and "Defence: no defence." in page
    assert "the network was trained in the ordinary way" in page and "PGD-2 × 1, margin |" in page
    for name in ("similarities", "embeddings", "distractors"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000


# The attack


def test_both_losses_are_tried_on_seen_and_unseen_names(run):
    metrics = metrics_of(run)
    for folder, start, count in ((run, "attack/", 30), (run / "unseen", "attack/unseen/", 24)):  # the latter whole
        arrays = read_predictions(folder, "attack.npz")
        right = arrays["logits"].argmax(1) == arrays["label"]
        assert len(right) == count and metrics[f"{start}clean/accuracy"] == right.mean()
        for name in ("noise", "fgsm", "pgd", "pgd_margin"):
            right &= arrays[f"logits_{name}"].argmax(1) == arrays["label"]
            assert arrays[f"linf_{name}"].max() <= 0.1 + 1e-6
        assert metrics[f"{start}worst/accuracy"] == right.mean()


def test_a_distractor_is_of_another_colour_and_shape():
    labels = np.array([0, 1, 10, 11, 22])
    others = partners(labels, lambda a, b: (a // 10 != b // 10) & (a % 10 != b % 10))
    assert others.tolist() == [3, 2, 4, 4, 0] and partners(np.array([5, 5]), np.not_equal).tolist() == [0, 1]


def test_a_distractor_changes_its_corner_alone(run):
    from datamodules.captions.digit_captions import DigitCaptions

    data = DigitCaptions(cache=str(run / "cache"), side=32, objects=(1, 1), train_items=2, val_items=2, test_items=12)
    data.prepare_data()
    images, labels, pasted = distracted(data, 12)
    assert (labels // 10 != pasted // 10).all() and (labels % 10 != pasted % 10).all()
    changed = (images != np.array(data.splits["test"].images)).any(1)
    scenes = data.scenes["test"]
    for row, where in enumerate(changed):
        down, across = (found / 32 for found in np.nonzero(where))
        assert len(down)
        assert min(abs(down - scenes.y[row, 0])) > 0.12 or min(abs(across - scenes.x[row, 0])) > 0.12


# Defences


def test_a_defence_starts_from_the_trained_model_and_leaves_the_rest(run, defended):
    before = load_run(run).network.state_dict()
    for name, folder in defended.items():
        after = load_run(folder).network.state_dict()
        changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
        assert changed == {"image_tower"}
        assert ("head.weight" in after) == (name == "cross_entropy")
        metrics = metrics_of(folder)
        assert 0 <= metrics["val/robust_accuracy"] <= 1 and metrics["parameters"] < metrics_of(run)["parameters"]
    assert "the network was trained against pgd with ε = 0.1" in (defended["tecoa"] / "report.md").read_text()


def test_a_defence_goes_on_as_it_was(run, tmp_path):
    """Resumed in the middle of an epoch: the same weights, the start's file not being needed any more."""
    words = [*SMALL, "task.module.defence=tecoa", f"start={run}", "stages=[fit]", "scheduler=constant"]
    words += ["trainer.val_check_interval=1", "trainer.limit_val_batches=1", "trainer.max_epochs=1"]
    run_here([*words, "trainer.max_steps=3"], tmp_path / "whole")
    run_here([*words, "trainer.max_steps=2"], tmp_path / "halves")
    again = ["task=contrastive", "stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=3"]
    run_here([*again, "start=gone"], tmp_path / "halves")
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] == 3
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name


def test_the_comparison_pairs_items_and_seeds(run, defended, tmp_path):
    page = tmp_path / "page.html"
    compare([str(defended["tecoa"]), str(defended["cross_entropy"]), str(run), "--output", str(page)])
    text = page.read_text()
    for said in ("<td>cross_entropy</td>", "<td>tecoa</td>", "less cross_entropy", "unseen names, 24",
                 "Linf ≤ 0.1: noise, fgsm, pgd, pgd_margin, 2 steps × 1.", "begun from another model"):  # fmt: skip
        assert said in text
    found = [read_predictions(defended[name] / "unseen", "attack.npz") for name in ("tecoa", "cross_entropy")]
    right = [np.logical_and.reduce([arrays[key].argmax(1) == arrays["label"] for key in arrays if "logits" in key])
             for arrays in found]  # fmt: skip
    assert f">{right[0].mean() - right[1].mean():+.1%}<" in text


def test_runs_attacked_in_other_ways_are_not_compared(defended):
    runs = read_runs(list(defended.values()))
    found = {run.name: attacked(run) for run in runs}
    groups = {run.config.task.module.defence: [run] for run in runs}
    assert "attacked in another way" not in difference_table(groups, found)
    found[runs[0].name] = found[runs[0].name]._replace(how="Linf ≤ 0.05: pgd, 2 steps × 1")
    assert difference_table(groups, found).count("| attacked in another way |") == 2
    assert "Linf ≤ 0.05: pgd, 2 steps × 1; or Linf ≤ 0.1: noise" in defence_table(groups, found)


def test_the_bootstrap_draws_seeds_and_items():
    rng = np.random.default_rng(0)
    effects = np.array([0.0, 0.1, 0.2])[:, None]
    interval = bootstrap_both(effects + rng.normal(0, 0.01, (3, 2000)))
    assert interval.mean == pytest.approx(0.1, abs=1e-3) and interval.low < 0.03 and interval.high > 0.17
    same = bootstrap_both(0.1 + rng.normal(0, 0.5, (3, 2000)))
    assert same.mean - 0.03 < same.low < same.mean < same.high < same.mean + 0.03
    assert bootstrap_both(np.full((3, 10), 0.25)) == (0.25, 0.25, 0.25)


def test_a_started_network_is_tested_as_it_is(run, tmp_path):
    run_here([*SMALL, "stages=[test]", f"start={run}"], tmp_path)
    assert metrics_of(tmp_path)["test/accuracy"] == metrics_of(run)["test/accuracy"]


@pytest.mark.parametrize("data", ["cifar10", pytest.param("cifar100", marks=pytest.mark.slow)])
def test_photographs_with_held_out_classes(data, tmp_path):
    real_data(data)
    held_out = {"cifar10": 2, "cifar100": 20}[data]
    small = [word for word in SMALL if not word.startswith(("data.", "trainer.max"))]
    words = [*small, *FEW, f"data={data}", "debug=quick", ALL, f"data.held_out={held_out}", "attack.eps=4/255"]
    run_here(words, tmp_path)
    kept, metrics = read_predictions(tmp_path), metrics_of(tmp_path)
    unseen = set(range(2, 100, 5)) if held_out == 20 else {2, 7}
    assert set(kept["label_unseen"]) <= unseen and not set(kept["label"]) & unseen
    assert metrics["attack/unseen/images"] == 30 and 0 <= metrics["attack/distractor/named"] <= 1


# Mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.module.defence=tecoa"], r"task.module.defence=tecoa defends a trained model: give start=RUN"),
        (["task.module.defence=tecoa", "start=nowhere"], "There is no checkpoint 'nowhere'"),
        (["task.module.defence=tecao"], r"is tecao \(did you mean 'tecoa'\?\)"),
        (["task.module.defence=lora", "task.module.adversarial.method=trades"], "trained on images of pgd"),
        (["task.module.adversarial.eps=8"], "pixels"),
        (["stages=[test,attack]"], r"stages=\[test,attack\] need a trained network: give ckpt_path=… or start=RUN"),
        (["stages=[fit,attack]", "attack.eps=-1"], "attack.eps is -1, but it must be from 0 to 1"),
        (["stages=[fit,attack]", "attack.items=41"], "attack.items is 41, but the test split has 40 images"),
        (["stages=[fit,attack]", "attack.norm=L1"], "attack.norm is L1"),
        (["data.objects=[2,3]", "data.glyph_size=[0.1,0.2]"], r"names of their classes.*data.objects=\[1,3\]"),
        (["data=digits"], "unknown|Could not|names of their classes"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, tmp_path):
    small = [word for word in SMALL if not (word.startswith("data.") and "data=digits" in words)]
    with pytest.raises(UsageError, match=said):
        run_here([*small, *words], tmp_path)


def test_a_start_must_fit(run, defended, tmp_path):
    words = [*SMALL, "task.module.defence=tecoa"]
    with pytest.raises(UsageError, match=r"is of a run with task.module.defence=cross_entropy: give a run of"):
        run_here([*words, f"start={defended['cross_entropy']}"], tmp_path)
    with pytest.raises(UsageError, match=r"is another network than this command's .*: give the words of its model too"):
        run_here([*words, f"start={run}", "model.filters=6"], tmp_path)
