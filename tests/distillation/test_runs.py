"""Runs: what a fit sees and leaves, how it goes on, and the student as an ordinary classifier."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.images.digits import Digits
from datamodules.loader import BatchLoader
from lightning_modules.classification import CNN
from lightning_modules.distillation.module import MOMENTS, Distillation
from lightning_modules.distillation.teacher import Teacher
from reporting.compare import main as compare
from reporting.load import load_run, read_checkpoint
from running import build
from tests.conftest import run_here
from tests.distillation.smallest import SMALLEST
from tests.soak.compare import differences
from tests.soak.killing import At

WORDS = ["task=distillation", *SMALLEST.words, "trainer.precision=32-true", "trainer.log_every_n_steps=1"]
WORDS += ["task.module.iterations=5", "trainer.max_epochs=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*WORDS, "task.module.oracle=true"], folder)
    return folder


@pytest.fixture(scope="module")
def teacher(run) -> Path:
    return run / "checkpoints" / "teacher.ckpt"


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


# A fit


def test_real_images_are_never_looked_at_in_a_fit(teacher, tmp_path, monkeypatch):
    """Their loaders raise where they are iterated; the weights are those of a run whose loaders do not."""

    class Refusing(BatchLoader):
        def __iter__(self):
            raise AssertionError("a real image was asked for")

    words = [*WORDS, f"teacher={teacher}", "stages=[teacher,fit]"]
    run_here(words, tmp_path / "free")
    with monkeypatch.context() as patched:
        patched.setattr("datamodules.images.shared.image.BatchLoader", Refusing)
        run_here(words, tmp_path / "refused")
        with pytest.raises(AssertionError, match="a real image"):
            run_here(["stages=[test]", f"ckpt_path={tmp_path / 'refused'}", "task=distillation"], tmp_path / "test")
    assert not differences(tmp_path / "free", tmp_path / "refused")


def test_a_batch_is_k_steps_of_the_student_and_one_of_the_generator(teacher, tmp_path, monkeypatch):
    order, own = [], Distillation.step
    monkeypatch.setattr(
        Distillation, "step", lambda self, player, loss: order.append(player) or own(self, player, loss)
    )
    run_here([*WORDS, f"teacher={teacher}", "stages=[teacher,fit]", "task.module.student_steps=3"], tmp_path)
    assert order == (["student"] * 3 + ["generator"]) * 15
    last = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 60 and last["batches_done"] == metrics_of(tmp_path)["steps"] == 15


def test_the_teacher_is_bit_for_bit_what_it_was(teacher, tmp_path, monkeypatch):
    seen: list[Teacher] = []
    own = Distillation.take
    monkeypatch.setattr(Distillation, "take", lambda self, teacher: seen.append(teacher) or own(self, teacher))
    monkeypatch.setattr(Distillation, "on_train_epoch_start", lambda self: self.train(), raising=False)
    run_here([*WORDS, f"teacher={teacher}", "stages=[teacher,fit]"], tmp_path)
    kept = read_checkpoint(teacher)["state_dict"]
    assert len(seen) == 1 and not seen[0].network.training
    for name, value in seen[0].network.state_dict().items():
        assert torch.equal(value, kept[f"network.{name}"]), name


class Killed(BaseException):
    """In place of a process's death."""


def test_a_run_killed_within_an_epoch_goes_on_bit_for_bit(teacher, tmp_path, monkeypatch):
    words = [*WORDS, f"teacher={teacher}", "trainer.val_check_interval=2", "stages=[teacher,fit]"]
    run_here(words, tmp_path / "whole")

    def die() -> None:
        raise Killed

    made = build.callbacks
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(build, "callbacks", lambda *given: [*made(*given), At("step:8", die)])
        run_here(words, tmp_path / "killed")
    place = read_checkpoint(tmp_path / "killed" / "checkpoints" / "last.ckpt")
    assert place["batches_done"] == 7 and place["loader_place"] == {"batches_done": 2}
    run_here([*words, f"ckpt_path={tmp_path / 'killed'}"], tmp_path / "killed")
    assert not differences(tmp_path / "whole", tmp_path / "killed")


def test_a_teacher_from_the_cache_leads_to_the_same_student(run, tmp_path):
    """The first run trained it; this one finds it."""
    trained = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lightning_modules.distillation.teacher.train_teacher", lambda *given: trained.append(given))
        run_here([*WORDS, "task.module.oracle=true", "stages=[teacher,fit]"], tmp_path)
    assert not trained
    one, other = (read_checkpoint(f / "checkpoints" / "last.ckpt")["state_dict"] for f in (run, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("inputs", ["frozen", "noise", "other", "hinton", "labels"])
def test_controls_train_the_same_student_in_as_many_steps(inputs, teacher, tmp_path):
    stages = "stages=[teacher,fit,test,report]" if inputs == "other" else "stages=[teacher,fit,test]"
    run_here([*WORDS, f"teacher={teacher}", f"task.module.inputs={inputs}", stages, "trainer.max_epochs=1"], tmp_path)
    figures = metrics_of(tmp_path)
    assert figures["steps"] == 5 and "train/discrepancy_generator" not in figures and "test/accuracy_ratio" in figures
    last = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 10 and len(last["optimizer_states"]) == 1
    if inputs == "other":
        assert "real images of another kind (a control)" in (tmp_path / "report.md").read_text()


# What it leaves


def test_figures_agree_with_the_predictions(run):
    figures, kept = metrics_of(run), np.load(run / "predictions.npz")
    student, teacher = kept["probabilities"].argmax(1), kept["teacher_probabilities"].argmax(1)
    assert figures["test/accuracy"] == pytest.approx((student == kept["label"]).mean()) and len(student) == 360
    assert figures["test/teacher_accuracy"] == pytest.approx((teacher == kept["label"]).mean())
    assert figures["test/agreement"] == pytest.approx((student == teacher).mean())
    assert figures["test/accuracy_ratio"] == pytest.approx(figures["test/accuracy"] / figures["test/teacher_accuracy"])
    sizes = [sum(p.numel() for p in load_run(run / "checkpoints" / f"{n}.ckpt").network.parameters())
             for n in ("student", "teacher")]  # fmt: skip
    assert [figures["parameters"], figures["teacher/parameters"]] == sizes
    assert figures["parameters_ratio"] == sizes[0] / sizes[1] and 0 < figures["flop_ratio"] < 1
    assert {
        "val/accuracy_oracle",
        "test/accuracy_oracle",
        "val/class_entropy",
        "val/discrepancy_eval",
    } <= figures.keys()


def test_the_last_checkpoint_is_what_is_tested(run):
    best, last = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert best["batches_done"] == last["batches_done"] == 15
    assert all(torch.equal(best["state_dict"][name], value) for name, value in last["state_dict"].items())
    assert last["state_dict"]["moments_kept"] == MOMENTS


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    titles = ["Accuracy", "Images that the student learned from", "The same noise through the training", "The game"]
    titles += ["What the teacher takes them for", "Confusions of the student", "Each class", "Made-up beside real"]
    for title in (*titles, "Curves"):
        assert f"## {title}\n" in text
    assert "not attainable without labels" in text and "images that the generator made" in text
    pictures = ("fakes", "fakes_over_time", "game", "classes", "confusion", "neighbours", "curves")
    assert all((run / f"figures/{name}.png").exists() for name in pictures)


def test_the_student_is_an_ordinary_classifier(run, tmp_path):
    student = run / "checkpoints" / "student.ckpt"
    words = ["task=classification", "model=cnn", "data=digits", f"ckpt_path={student}", "attack.items=20"]
    run_here([*words, "stages=[test,attack,report]"], tmp_path)
    figures, own = metrics_of(tmp_path), metrics_of(run)
    assert figures["test/accuracy"] == own["test/accuracy"] and any(name.startswith("attack/") for name in figures)
    network, spec, config = load_run(student)
    assert isinstance(network, CNN) and spec == Digits().spec and config.choices.task == "classification"
    images = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(network(images), load_run(run).network(images))


def test_the_teacher_too_and_a_run_may_start_from_it(run, teacher, tmp_path):
    assert load_run(teacher).network.normalise
    run_here([*WORDS, f"teacher={teacher}", "stages=[teacher]"], tmp_path)
    assert metrics_of(tmp_path)["teacher/accuracy"] == metrics_of(run)["teacher/accuracy"]


def test_later_stages_find_the_teacher_beside_the_checkpoint(run, tmp_path):
    run_here([f"ckpt_path={run}", "task=distillation", "stages=[test,sample]"], tmp_path)
    assert metrics_of(tmp_path)["test/accuracy"] == metrics_of(run)["test/accuracy"]
    assert (tmp_path / "figures" / "fakes.png").exists() and (tmp_path / "checkpoints" / "teacher.ckpt").exists()


@pytest.mark.filterwarnings("error:No artists with labels")  # of a figure of training alone too
def test_runs_side_by_side(run, teacher, tmp_path):
    words = ["task.module.inputs=noise", "trainer.max_epochs=1", "stages=[teacher,fit,test]"]
    run_here([*WORDS, f"teacher={teacher}", *words], tmp_path / "noise")
    compare([str(run), str(tmp_path / "noise"), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    assert "images that the generator made" in text and "Gaussian noise (a control)" in text


# What cannot be


def test_without_a_teacher_nothing_can_be_learned(tmp_path):
    with pytest.raises(UsageError, match=r"no teacher: begin with stages=\[teacher,…\], or give teacher=RUN"):
        run_here([*WORDS, "stages=[fit]"], tmp_path)


def test_a_teacher_must_be_a_normalising_classifier_of_this_data(run, tmp_path):
    def refused(said: str, *words: str) -> None:
        with pytest.raises(UsageError, match=said):
            run_here([*WORDS, *words], tmp_path / "refused")

    plain = ["task=classification", "model.filters=2", "model.depth=1", "debug=quick", "stages=[fit]"]
    run_here(plain, tmp_path / "plain")
    refused("does not normalise its images.*model.normalise=true", f"teacher={tmp_path / 'plain'}")
    run_here([*plain, "data=digit_shapes", "model.normalise=true"], tmp_path / "shapes")
    refused("was trained on ImageSpec.*choose the data it was trained on", f"teacher={tmp_path / 'shapes'}")
    refused("is a run of task=distillation, but a teacher is one of task=classification", f"teacher={run}")
    refused("There is no checkpoint", f"teacher={tmp_path / 'nowhere'}")


def test_a_batch_of_one_is_refused(teacher, tmp_path):
    with pytest.raises(UsageError, match=r"data\.batch_size is 1, but the normalisations need a batch of 2"):
        run_here([*WORDS, f"teacher={teacher}", "data.batch_size=1"], tmp_path)


def test_a_teacher_at_chance_is_said(run, tmp_path, caplog):
    path = run / "checkpoints" / "teacher.ckpt"
    kept = torch.load(path, weights_only=True)
    kept["metrics"]["val/accuracy"] = 0.15
    poor = tmp_path / "poor.ckpt"
    torch.save(kept, poor)
    with caplog.at_level(logging.WARNING):
        run_here([*WORDS, f"teacher={poor}", "stages=[teacher]"], tmp_path / "run")
    assert "right on 15.0 % of its validation images: no better than chance" in caplog.text


def test_an_epoch_is_its_iterations_not_the_real_images_batches(teacher, tmp_path):
    """The digits' 1,077 training images are three batches of 400."""
    words = [*WORDS, f"teacher={teacher}", "stages=[teacher,fit]", "data.batch_size=400", "trainer.max_epochs=1"]
    run_here([*words, "trainer.val_check_interval=4"], tmp_path / "within")
    assert metrics_of(tmp_path / "within")["steps"] == 5
    with pytest.raises(UsageError, match="val_check_interval is 6 batches, but an epoch has 5: choose fewer"):
        run_here([*words, "trainer.val_check_interval=6"], tmp_path / "beyond")
