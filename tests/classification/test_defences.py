"""Defences in front of a network, images of other networks, and what tells whether an attack can be believed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification.robustness.defences import (
    defence_text,
    defended_figures,
    defended_rows,
    require_fitting,
)
from lightning_modules.classification.robustness.sanity import (
    breaks_what_can_be,
    checks,
    converged,
    falls_at_some_distance,
)
from lightning_modules.classification.robustness.suite import Settings
from lightning_modules.classification.robustness.transfer import surrogate
from reporting.folder import CONF
from reporting.predictions import read_predictions
from running.check import check_command
from tests.conftest import run_here

SMALL = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true", "patience=null"]
FEW = ["attack.items=32", "attack.batch_size=16", "attack.eps=0.1", "attack.steps=3", "attack.attacks=[fgsm,pgd]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*SMALL, "stages=[fit]", "trainer.max_epochs=3"], folder)
    return folder


def attacked(run: Path, folder: Path, *words: str) -> dict[str, float]:
    words = ["stages=[attack,report]", f"ckpt_path={run}", *FEW, *words]
    run_here([*check_command(words), *words], folder)
    return json.loads((folder / "metrics.json").read_text())


def settings(**more) -> Settings:
    node = OmegaConf.to_container(OmegaConf.load(CONF / "attack/quick.yaml")) | {"seed": 0}
    return Settings.of(node | {"apgd_steps": 10, "apgd_restarts": 1, "steps": 5, "eps": 0.1} | more)


@pytest.fixture(scope="module")
def forward():
    """Two random layers on the pixels, which tell four classes apart by little."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(64, 32, generator=generator), torch.randn(32, 4, generator=generator)
    return lambda x: torch.tanh((x.flatten(1) - 0.5) @ first) @ second


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def rows_of(forward, images, **more) -> dict[str, np.ndarray]:
    labels = forward(images).argmax(1)
    return defended_rows(forward, images, labels, range(len(images)), images, settings(**more))


@pytest.mark.parametrize("defence", ["bit_depth", "jpeg", "median", "smooth", "noise", "tv"])
def test_what_knows_more_breaks_at_least_as_much(defence, forward, images):
    rows = rows_of(forward, images, preprocessing=defence)
    kinds = ("clean", "unaware", "adaptive", *(["eot"] if defence == "noise" else []))
    assert {f"defended_{kind}" for kind in kinds} < rows.keys()
    slack = 0.1 if defence == "noise" else 0  # of the mean over fresh draws, 20 of each of 12 images
    for weaker, stronger in pairwise(kinds):
        assert rows[f"defended_{stronger}"].mean() <= rows[f"defended_{weaker}"].mean() + slack
    forms = {name for name in rows if name.startswith("defended_way_adaptive")}
    both = defence in ("median", "smooth", "noise")
    assert len(forms) == 1 + both, "where there is a true gradient both forms are tried"
    assert all(((share >= 0) & (share <= 1)).all() for share in rows.values())
    assert ("defended_eot" in rows) == (defence == "noise")


def test_every_loss_that_the_attacks_name_is_tried_behind_a_defence(forward, images):
    """A thousand times the logits, and the gradient of the cross-entropy is 0; the margin's is not."""
    left = {}
    for names in (["pgd"], ["pgd", "pgd_margin"]):
        for defence in ("smooth", "noise"):
            rows = rows_of(lambda x: 1000 * forward(x), images, preprocessing=defence, attacks=names)
            left[defence, len(names)] = [rows[f"defended_{kind}"].mean() for kind in ("unaware", "adaptive", "bare")]
    for defence in ("smooth", "noise"):
        assert all(two < one for one, two in zip(left[defence, 1], left[defence, 2], strict=True)), left


def test_random_defences_are_judged_on_draws_of_their_own_and_alike_each_time(forward, images):
    first, again = (rows_of(forward, images, preprocessing="noise", preprocessing_strength=0.3) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    shares = first["defended_clean"]
    assert np.allclose(shares * 20, np.round(shares * 20)) and 0 < shares.mean() < 1
    other = rows_of(forward, images, preprocessing="noise", preprocessing_strength=0.3, seed=1)
    assert not np.array_equal(other["defended_clean"], shares)


def test_a_defence_is_called_one_by_the_last_column_alone():
    """It keeps all before an attack that does not know it; what it keeps before one that does decides."""
    clean, none = np.ones(200, np.float32), np.zeros(200, np.float32)
    arrays = {"logits": np.eye(2)[np.zeros(200, int)], "label": np.zeros(200, int)}
    arrays |= {"defended_clean": clean, "defended_unaware": clean, "defended_way_adaptive_identity": none}
    broken = arrays | {"defended_adaptive": none, "defended_bare": none}
    text = defence_text(broken, settings(preprocessing="jpeg"))
    assert "**No defence**: +0.0% of images" in text and "does not know it leaves 100.0% more" in text
    holds = arrays | {"defended_adaptive": clean, "defended_bare": none}
    assert "**A defence** against this attack: +100.0% of images" in defence_text(holds, settings(preprocessing="jpeg"))
    found = defended_figures(holds)
    assert found["attack/defended/adaptive/accuracy"] == 1 and found["attack/defended/bare/accuracy/high"] < 0.03


def test_the_stage_shows_a_defence_three_ways(run, tmp_path):
    metrics = attacked(run, tmp_path, "attack.preprocessing=noise", "attack.preprocessing_strength=0.2")
    shares = [metrics[f"attack/defended/{kind}/accuracy"] for kind in ("clean", "unaware", "adaptive", "eot")]
    assert shares[0] > shares[-1]
    page = (tmp_path / "report.md").read_text()
    assert "| **noise, sd 0.2** |" in page and "and follows the mean of 16 draws |" in page
    assert "its true gradient, the mean of 16 draws" in page and "means over 20 draws that no attack saw" in page


def test_images_of_another_run_are_tried(run, tmp_path):
    """Crafted on the network itself they break as many as its own; the row and the check are there."""
    metrics = attacked(run, tmp_path, f"attack.transfer={run}", "attack.preprocessing=none")
    arrays = read_predictions(tmp_path, "attack.npz")
    assert arrays["linf_transfer"].max() <= 0.1 + 1e-6
    assert metrics["attack/worst/accuracy"] <= metrics["attack/transfer/accuracy"] <= metrics["attack/clean/accuracy"]
    assert metrics["attack/transfer/accuracy"] <= metrics["attack/pgd/accuracy"] + 2 / 32
    crafted = read_predictions(tmp_path, "crafted.npz")
    assert crafted["moved"].shape == (32, 1, 8, 8) and np.abs(crafted["moved"] - crafted["images"] / 16).max() < 0.1001
    page = (tmp_path / "report.md").read_text()
    assert f"crafted on `{run}`" in page and "breaks at least what another network's does" in page
    assert "Not tried here" not in page


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ImageSpec(1, 9, 8, 17, 10), "was trained on grey 8×8 images, but these are grey 9×8: give a run of the same"),
        (ImageSpec(3, 8, 8, 17, 10), "but these are RGB 8×8"),
        (ImageSpec(1, 8, 8, 17, 7), "tells 10 classes apart, but there are 7 here: give a run of the same classes"),
    ],
)
def test_images_of_another_kind_of_run_are_refused(spec, said, run):
    with pytest.raises(UsageError, match=said):
        surrogate(run, spec)


def test_a_run_that_is_no_classifiers_lends_no_images(quick_run):
    with pytest.raises(UsageError, match="is no classifier's run: give one of task=classification"):
        surrogate(quick_run, ImageSpec(1, 8, 8, 17, 10))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attack.preprocessing=bitdepth"], r"preprocessing=bitdepth is none of none, bit_depth"),
        (["attack.preprocessing=bit_depth", "attack.preprocessing_strength=0"], "bits is 0, but bit_depth needs 1"),
        (["attack.preprocessing=jpeg", "attack.preprocessing_strength=75.5"], "quality of jpeg is a whole number"),
        (["attack.preprocessing=median", "attack.preprocessing_strength=17"], "fits into images of 8×8 up to 15"),
        (["attack.preprocessing=smooth", "attack.preprocessing_strength=0"], "sd is 0, but smooth needs one above 0"),
        (["attack.preprocessing=smooth", "attack.targeted=true"], "leave attack.targeted at false"),
        (["attack.apgd_steps=0"], "attack.apgd_steps is 0, but it must be from 1"),
        (["attack.transfer=nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, run, tmp_path):
    with pytest.raises(UsageError, match=said):
        attacked(run, tmp_path, *words)


def test_jpeg_stores_grey_and_rgb_alone():
    with pytest.raises(UsageError, match="jpeg stores grey or RGB images, but these have 2 channels"):
        require_fitting(settings(preprocessing="jpeg").defence(), ImageSpec(2, 8, 8, 17, 10))


def test_a_task_without_classes_has_no_such_stage(tmp_path):
    with pytest.raises(UsageError, match="attack"):
        run_here(["task=pixelrnn", "stages=[attack]"], tmp_path)


def test_every_report_tells_whether_the_attack_can_be_believed(run, tmp_path):
    attacked(run, tmp_path)
    page = (tmp_path / "report.md").read_text()
    for what in ("Twice the steps, from other starts too, change nothing", "The loss rises most along the gradient",
                 "An adversarial image that surely exists is found"):  # fmt: skip
        assert f"| {what} |" in page
    assert (tmp_path / "figures/loss_surface.png").stat().st_size > 1000
    arrays = read_predictions(tmp_path, "attack.npz")
    assert arrays["surfaces"].shape == (4, 21, 21) and arrays["confidence"].shape == (2, 3)
    worst = np.logical_and.reduce(
        [arrays[f"logits{end}"].argmax(1) == arrays["label"] for end in ("", "_fgsm", "_pgd")]
    )
    assert not (arrays["right_longer"] & ~worst).any()


def test_an_attack_that_has_not_converged_or_sees_nothing_is_told():
    right = {"clean": np.ones(1000, bool), "pgd": np.arange(1000) < 500}
    longer = {"right_longer": np.arange(1000) < 480}
    assert converged(longer, right).verdict == "**not converged: give more steps and restarts**"
    assert converged(longer, right).found == "another 2.0% broken: 50.0% → 48.0%"
    assert converged({"right_longer": np.arange(1000) < 495}, right).verdict == "holds"
    assert breaks_what_can_be(np.array([[1.0, 0.1, 24], [0.96, 0.2, 24]])).verdict == "holds"
    for bad in ([0.9, 0.1, 24], [1.0, 0.6, 24], [1.0, 0.0, 0]):
        assert "misses what surely exists" in breaks_what_can_be(np.array([[1.0, 0.1, 24], bad])).verdict
    near = {"logits": np.eye(2)[[0] * 4], "label": np.zeros(4, int), "tried_cw": np.arange(4) < 3}
    cw = {said: falls_at_some_distance(near | {"logits_cw": np.eye(2)[taken]}).verdict
          for said, taken in {"all": [1, 1, 1, 0], "two": [1, 1, 0, 0]}.items()}  # fmt: skip
    assert cw["all"] == "holds" and "the search for the nearest image fails" in cw["two"]
    flat = {"surfaces": np.zeros((4, 5, 5)), "right_at_all": np.zeros(4, bool), "zero_gradient": np.zeros(4, bool)}
    flat |= {"logits": np.eye(2)[[0] * 4], "logits_pgd": np.eye(2)[[1] * 4], "label": np.zeros(4, int)}
    assert any("the gradient is masked**" in check.verdict for check in checks(flat, []))


def test_checkpoints_can_be_chosen_alike_with_and_without_training_against_attacks(run, tmp_path):
    words = [*SMALL, "stages=[fit]", "trainer.max_steps=4", "task.module.adversarial.aimed=true"]
    run_here([*words, "task.monitor=val/aimed_accuracy", "task.mode=max"], tmp_path / "ordinary")
    found = json.loads((tmp_path / "ordinary/metrics.json").read_text())
    assert found["val/aimed_accuracy"] == found["val/accuracy"]
    against = ["task.module.adversarial.method=fgsm_rs", "task.monitor=val/aimed_accuracy", "task.mode=max"]
    run_here([*words, *against], tmp_path / "against")
    found = json.loads((tmp_path / "against/metrics.json").read_text())
    assert found["val/aimed_accuracy"] == found["val/robust_accuracy"]
