"""Runs of CycleGAN and CyCADA: exact resume, the players' steps, figures and pages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.adaptation import SourceOnly, TargetTrained
from lightning_modules.adaptation.translation import CyCADA, CycleGAN, SemanticTranslation, Translation, labeller
from reporting.load import read_checkpoint
from tests.conftest import run_here
from tests.several.ending import killed
from tests.soak.compare import differences

TINY = ["task=adaptation", "trainer.precision=32-true", "trainer.log_every_n_steps=1", "trainer.max_epochs=2"]
TINY += ["data.batch_size=8", "trainer.limit_train_batches=5", "trainer.val_check_interval=2"]
TINY += ["trainer.limit_val_batches=1", "data.eval_batch_size=16", "task.module.pool=6", "stages=[fit]"]
SMALL = ["model.generator_width=2", "model.generator_blocks=1", "model.discriminator_width=2"]
# Between them all that has a state: noise, dropout, statistics, pools, the labeller, schedules of weights.
MODELS = {
    "cyclegan": ["model=cyclegan", *SMALL, "model.noise=2", "model.dropout=0.3", "model.norm=joint"],
    "cycada": ["model=cycada", *SMALL, "task.module.feature_level=true", "task.module.semantic_target=0.5",
               "task.module.semantic_start=0.3", "task.module.source_steps=20", "task.module.clip=1.0"],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ETUDES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Path]:
    """Of each model one run that nothing ended."""

    @cache
    def made(model: str) -> Path:
        run_here([*TINY, *MODELS[model]], folder := tmp_path_factory.mktemp("whole"))
        return folder

    return made


@pytest.mark.parametrize(("model", "moment"), [("cyclegan", "step:8"), ("cycada", "step:5"), ("cycada", "term:3:-")])
def test_a_run_that_goes_on_is_the_run_that_was_never_ended(model, moment, whole, tmp_path, monkeypatch):
    """Killed in the middle of an epoch of 5 batches, after the validation behind its 2nd and 4th."""
    trained = []
    before = SemanticTranslation.before_fit
    words = [*TINY, *MODELS[model]]
    unended = whole(model)
    monkeypatch.setattr(SemanticTranslation, "before_fit", lambda *given: trained.append(before(*given)))
    killed(run_here, words, tmp_path / "halves", moment)
    ended = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")
    assert 0 < ended["batches_done"] < 9
    again = ["task=adaptation", f"model={model}", "stages=[fit]", f"ckpt_path={tmp_path / 'halves'}"]
    run_here(again, tmp_path / "halves")
    assert differences(unended, tmp_path / "halves") == []
    last = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")
    assert (last["batches_done"], last["global_step"], len(last["optimizer_states"])) == (9, 27, 3)
    assert last["state_dict"]["pool_target.count"] == 6
    assert len(trained) == (1 if model == "cycada" else 0), "the labeller is not trained again"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A whole run of CyCADA with noise, and of its stage `translate`."""
    folder = tmp_path_factory.mktemp("run")
    words = [*TINY[:-1], *MODELS["cycada"], "model.noise=2", "stages=[fit,test,bounds,translate,report]"]
    run_here([*words, "trainer.max_epochs=1", "trainer.limit_test_batches=2", "task.module.embedded_items=4"], folder)
    return folder


def test_a_run_leaves_its_figures_and_pictures(run):
    metrics, text = metrics_of(run), (run / "report.md").read_text()
    for name in ("cycle_l1", "diversity", "semantic_agreement", "label_kept", "kernel_distance_own_features"):
        assert np.isfinite(metrics[f"test/{name}"]), name
    assert metrics["test/diversity"] > 0 and 0 <= metrics["test/label_kept"] <= 1
    assert 0 < metrics["val/labeller_accuracy_source"] <= 1 and metrics["steps"] == 5
    for title in ("Translations", "The same digits over training", "Players", "Learnt by heart?"):
        assert f"## {title}\n" in text
    for name in ("translations", "over_training", "players", "nearest"):
        assert (run / f"figures/{name}.png").exists()
    with Image.open(run / "translated/strip.png") as strip:
        assert strip.size == (10 * 29 + 1, 8 * 29 + 1)


def test_the_labeller_is_what_it_was_before_the_fit(run):
    """Its weights are those that the cache keeps of its own training."""
    weights = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    kept = [np.load(path) for path in Path(os.environ["ETUDES_CACHE"]).glob("bound_source-*/conv1.weight.npy")]
    assert any((weights["network.labeller.conv1.weight"].numpy() == one).all() for one in kept)


def test_a_folders_images_are_translated(run, tmp_path):
    Image.new("RGB", (40, 60), "white").save(tmp_path / "one.png")
    Image.new("L", (28, 28)).save(tmp_path / "two.jpg")
    words = ["task=adaptation", "model=cycada", "stages=[translate]", f"ckpt_path={run}"]
    run_here([*words, f"images={tmp_path}"], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out/translated").iterdir()} == {"strip.png", "one.png", "two.png"}
    with Image.open(tmp_path / "out/translated/one.png") as made:
        assert made.size == (28, 28)
    for images, said in ((tmp_path / "none", "There is no folder images="), (tmp_path / "out", r"holds no \.png, ")):
        with pytest.raises(UsageError, match=said):
            run_here([*words, f"images={images}"], tmp_path / "again")


def test_a_classifier_after_has_the_last_quarter_alone(tmp_path, monkeypatch):
    steps: list[str] = []
    stepped = Translation.step
    monkeypatch.setattr(
        Translation, "step", lambda own, player, loss: (steps.append(player), stepped(own, player, loss))[1]
    )
    words = [*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=8", "model=cyclegan", *SMALL]
    run_here([*words, "task.module.classifier=after"], tmp_path)
    assert steps == ["generators", "discriminators"] * 6 + ["classifier"] * 2
    for word, said in (
        ("classifier=later", "'later': choose one of joint, after"),
        ("classifier=after", "classifier=joint"),
    ):
        with pytest.raises(UsageError, match=said):
            tiny_module(Translation, "cyclegan", classifier=word.split("=")[1], task_through_generator=True)


class Brighter(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1


def tiny_module(kind: type[Translation], model: str, **settings: Any) -> Translation:
    network = {"cyclegan": CycleGAN, "cycada": CyCADA}[model](
        ImageSpec(3, 28, 28, 256, 10), generator_width=2, generator_blocks=1, discriminator_width=2
    )
    makers = dict.fromkeys(("optimizer", "scheduler", "adversary_optimizer", "adversary_scheduler"))
    return kind(network, **makers, **settings)


def test_generators_that_change_nothing_lose_by_the_judges_alone():
    module = tiny_module(Translation, "cyclegan")
    module.network.to_target = module.network.to_source = nn.Identity()
    x, y = torch.rand(2, 3, 28, 28), torch.rand(2, 3, 28, 28)
    parts = module.generator_parts(x, y, x, y, torch.tensor([0, 1]))
    assert parts["cycle"] == 0 and parts["identity"] == 0 and parts["fooling"] > 0
    twice = tiny_module(Translation, "cyclegan", cycle_target=0.0, identity=0.0)
    twice.network.to_target, twice.network.to_source = nn.Identity(), Brighter()
    assert twice.generator_parts(x, y, x, y, torch.tensor([0, 1]))["cycle"] == pytest.approx(1.0, rel=1e-5)
    assert "identity" not in twice.generator_parts(x, y, x, y, torch.tensor([0, 1]))


def test_the_semantic_loss_is_the_labellers_on_both_halves():
    module = tiny_module(SemanticTranslation, "cycada", semantic_target=0.5)
    x, y, labels = torch.rand(3, 3, 28, 28), torch.rand(3, 3, 28, 28), torch.tensor([1, 2, 3])
    made, back = torch.rand(3, 3, 28, 28), torch.rand(3, 3, 28, 28)
    label = module.network.label_logits
    own = label(y).argmax(1)
    wanted = F.cross_entropy(label(made), labels) + 0.5 * F.cross_entropy(label(back), own)
    assert module.semantic_parts(x, y, made, back, labels) == pytest.approx(wanted.item())
    module.semantic_gate = 1.0  # nobody is so sure
    assert module.semantic_parts(x, y, made, back, labels) == pytest.approx(F.cross_entropy(label(made), labels).item())
    module.semantic_labels = False
    wanted = F.cross_entropy(label(made), label(x).argmax(1))
    assert module.semantic_parts(x, y, made, back, labels) == pytest.approx(wanted.item())


@pytest.mark.parametrize(
    ("kind", "sides", "norm", "said"),
    [
        (TargetTrained, 28, "none", "was not trained on the source alone"),
        (SourceOnly, 28, "joint", r"was not trained on the source alone with model\.norm=none"),
        (SourceOnly, 32, "none", r"was trained on ImageSpec\(channels=3, height=32"),
    ],
)
def test_a_labeller_knows_the_source_alone(kind, sides, norm, said, monkeypatch):
    network = kind(ImageSpec(3, sides, sides, 256, 10), norm=norm)
    monkeypatch.setattr(labeller, "load_run", lambda path: (network, network.spec, None))
    with pytest.raises(UsageError, match=said):
        labeller.of_checkpoint(SourceOnly(ImageSpec(3, 28, 28, 256, 10)), "a_run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=cycada", "task.module.semantic_start=2"], r"semantic_start is 2, but it is a share: .* from 0 to 1"),
        (["model=cyclegan", "task.module.cycle=-1"], r"task\.module\.cycle is -1, but it must be 0 or more"),
        (["model=cyclegan", "trainer.gradient_clip_val=1.0"], r"give task\.module\.clip=1\.0 in its place"),
        (["model=dann", "stages=[fit,translate]"], "The stage translate needs a network that translates"),
        (["model=cycada", "source_ckpt=nowhere"], "There is no checkpoint 'nowhere'"),
        (["model=dann", "adversary_optimizer=adam"], "is trained by one optimizer: leave out adversary_optimizer"),
    ],
)
def test_what_cannot_be_is_one_sentence(words, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        run_here(["task=adaptation", "trainer.limit_train_batches=1", *words], tmp_path)
