"""The stage `attack` and adversarial training: figures, going on, what a report says, mistakes."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import train as command
from datamodules.errors import UsageError
from lightning_modules.attacks import forward_of
from lightning_modules.classification.robustness import stage
from lightning_modules.classification.robustness.adversarial import Adversary, Overfitting
from lightning_modules.classification.robustness.progress import Progress
from lightning_modules.classification.robustness.sanity import checks
from lightning_modules.classification.robustness.soundness import still_right
from lightning_modules.classification.robustness.stage import attack_figures
from lightning_modules.classification.robustness.suite import Settings
from reporting.folder import CONF
from reporting.load import load_run, read_checkpoint
from reporting.predictions import read_predictions
from running.check import check_command
from tests.conftest import run_here
from tests.forked import Command, train, train_as_two

SMALL = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true", "patience=null"]
FEW = ["attack.items=48", "attack.batch_size=16", "attack.eps=0.1", "attack.steps=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*SMALL, *FEW, "stages=[fit,test,attack,report]", "trainer.max_epochs=3", "attack.curve=[0.5,1]"], folder)
    return folder


def on_checkpoint(words: list[str], folder: Path) -> None:
    """As train.py does it: the words that choose what the checkpoint was trained with are added."""
    run_here([*check_command(words), *words], folder)


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_the_stage_leaves_figures_that_its_file_confirms(run):
    metrics, arrays = metrics_of(run), read_predictions(run, "attack.npz")
    assert metrics["attack/images"] == 48 and arrays["item"].tolist() == list(range(48))
    predictions = read_predictions(run)
    np.testing.assert_array_equal(arrays["label"], predictions["label"][:48])
    right = arrays["logits"].argmax(1) == arrays["label"]
    assert metrics["attack/clean/accuracy"] == right.mean()
    worst = right.copy()
    for name in ("noise", "fgsm", "pgd"):
        withstood = arrays[f"logits_{name}"].argmax(1) == arrays["label"]
        assert metrics[f"attack/{name}/accuracy"] == (right & withstood).mean()
        assert arrays[f"linf_{name}"].max() <= 0.1 + 1e-6
        worst &= withstood
    assert metrics["attack/worst/accuracy"] == worst.mean() < metrics["attack/clean/accuracy"]
    low, high = (metrics[f"attack/worst/accuracy/{end}"] for end in ("low", "high"))
    assert 0 <= low < worst.mean() < high <= 1
    assert not (run / stage.PARTS).exists()


def test_the_report_says_what_was_attacked_and_whether_to_believe_it(run):
    page = (run / "report.md").read_text()
    assert "48 test images, L∞ ≤ 0.1; the network was trained in the ordinary way." in page
    assert "| PGD-3 × 1, cross_entropy |" in page and "**worst case of each image**" in page
    assert "| Where ε is the whole range nothing withstands |" in page and "too few to tell: 48 images" in page
    for name in ("adversarial", "confusion_attacked", "accuracy_by_eps"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000


def test_any_network_of_a_checkpoint_is_attacked_and_draws_do_not_depend_on_batches(run, tmp_path):
    words = ["stages=[attack]", f"ckpt_path={run}", "attack.batch_size=48"]
    on_checkpoint(words, tmp_path)
    first, again = (read_predictions(folder, "attack.npz") for folder in (run, tmp_path))
    same = [(first[f"logits_{n}"].argmax(1) == again[f"logits_{n}"].argmax(1)).mean() for n in ("noise", "fgsm", "pgd")]
    assert min(same) >= 47 / 48


def test_the_network_is_left_as_it_was(run):
    network = load_run(run).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = torch.rand(4, 1, 8, 8) * 16, torch.tensor([1, 2, 3, 4])
    for method in ("pgd", "fgsm_rs", "trades"):
        Adversary(method, eps=0.1).batch(network.train(), images, labels, 1.0)
    assert network.training and all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_long_batch_says_what_it_does(run, caplog):
    network = load_run(run).network.eval()
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
    settings = Settings.of(settings_of("standard") | {"attacks": ["fgsm", "cw"], "cw_items": 3, "curve": [1]})
    labels[:3] = network(16 * images).argmax(1)[:3]
    labels[3] = (network(16 * images).argmax(1)[3] + 1) % 10
    progress = Progress(every=0)
    caplog.set_level("INFO")
    forward = progress.watched(forward_of(network, 17))
    rows = stage.attacked(forward, images, labels, range(4), settings, 17, None, progress, "images 1 to 4 of 9")
    for said in ("attack: fgsm, images 1 to 4 of 9: 4 of at most 4 passes",
                 "attack: cw, images 1 to 4 of 9: 3 of at most 27,000 passes, ", "attack: PGD at 1 ε, "):  # fmt: skip
        assert said in caplog.text
    assert rows["tried_cw"].tolist() == [True] * 3 + [False], "what is wrong already has no distance"
    assert (rows["logits_cw"][:3].argmax(1) != labels[:3].numpy()).all()


def settings_of(choice: str) -> dict:
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"attack/{choice}.yaml")) | {"seed": 0}
    return node | {"apgd_steps": 2, "apgd_restarts": 1, "steps": 2}


def test_the_curve_is_of_every_loss_that_is_tried():
    """Logits 1,000 times as large have no gradient of cross-entropy: only the margin's PGD breaks them."""
    images, labels = torch.rand(6, 1, 8, 8) / 4 + 0.5, torch.zeros(6, dtype=torch.long)

    def forward(x):
        return 1000 * torch.stack([x.flatten(1).mean(1), torch.full((len(x),), 0.45)], 1)

    found = {}
    for names in (["pgd"], ["pgd", "pgd_margin"]):
        settings = Settings.of(settings_of("quick") | {"attacks": names, "steps": 10})
        right = forward(images).argmax(1) == labels
        at_eps = [stage.right_at(forward, images, labels, list(range(6)), right, settings, eps) for eps in (0.25, 0.3)]
        found[len(names)] = [kept.sum().item() for kept in at_eps]
        assert still_right(forward, images, labels, range(6), right, settings).sum() <= right.sum()
    assert found[1] == [6, 6] and found[2] == [0, 0]


def killed_in_batch(number: int) -> None:
    """train.py, killed in a batch of the stage `attack`."""
    attacked, seen = stage.attacked, []

    def counting(*words):
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return attacked(*words)

    stage.attacked = counting
    command.main()


def test_a_killed_attack_goes_on_from_whole_batches(run, tmp_path):
    words = ["stages=[attack]", f"ckpt_path={run}", "hydra.run.dir=run"]
    assert Command(words, tmp_path, partial(killed_in_batch, 3)).ended().returncode == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "run" / stage.PARTS).iterdir()} >= {"00000.npz", "00001.npz"}
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0 and "goes on after 2 whole batches" in done.stdout, done.stderr
    whole, again = (read_predictions(folder, "attack.npz") for folder in (run, tmp_path / "run"))
    for name, value in whole.items():
        if not name.startswith("right_at"):
            np.testing.assert_array_equal(value, again[name], err_msg=name)


def test_figures_of_an_earlier_attack_do_not_stay(tmp_path):
    stage.forget(tmp_path)
    (tmp_path / "metrics.json").write_text('{"attack/cw/distance": 0.5, "test/accuracy": 0.9}')
    stage.forget(tmp_path)
    assert metrics_of(tmp_path) == {"test/accuracy": 0.9}


def test_batches_of_other_settings_are_not_gone_on_with(run, tmp_path):
    words = ["stages=[attack]", f"ckpt_path={run}", "hydra.run.dir=run"]
    Command(words, tmp_path, partial(killed_in_batch, 2)).ended()
    done = train(*words, "attack.eps=8/255", folder=tmp_path)
    assert done.returncode == 0 and "goes on" not in done.stdout, done.stderr
    assert read_predictions(tmp_path / "run", "attack.npz")["linf_pgd"].max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize("method", ["pgd", "fgsm_rs", "trades"])
def test_training_against_attacks_goes_on_as_it_was(method, tmp_path):
    """Resumed in the middle of an epoch: the same weights and figures, draws included."""
    own = f"task.module.adversarial={{method: {method}, eps: 0.1, steps: {'null' if method == 'fgsm_rs' else 2}, "
    own += "step: null, warmup: 0.0, craft_mode: eval, beta: 6.0, val_items: 20}"
    words = [*SMALL, own, "stages=[fit]", "scheduler=constant", "trainer.max_epochs=1", "model.dropout=0.2"]
    words += ["trainer.limit_train_batches=6", "trainer.val_check_interval=3", "trainer.limit_val_batches=1"]
    run_here([*words, "trainer.max_steps=-1"], tmp_path / "whole")
    run_here([*words, "trainer.max_steps=4"], tmp_path / "halves")
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=-1"], tmp_path / "halves")
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] == 6
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name
    assert 0 <= whole["metrics"]["val/robust_accuracy"] <= whole["metrics"]["val/accuracy"]


def test_it_makes_a_network_withstand_what_an_ordinary_one_does_not(tmp_path):
    words = ["task=classification", "model.filters=8", "model.depth=3", "patience=null", "stages=[fit,attack]"]
    words += ["trainer.max_epochs=12", "attack.items=128", "attack.eps=0.15", "trainer.precision=32-true"]
    found = {}
    for method in ("null", "fgsm_rs"):
        how = [f"task.module.adversarial.method={method}", "task.module.adversarial.eps=0.15"]
        run_here([*words, *how], tmp_path / method)
        found[method] = metrics_of(tmp_path / method)["attack/worst/accuracy"]
    assert found["fgsm_rs"] > found["null"] + 0.2, found


def test_strong_attacks_follow_one_another(run, tmp_path):
    words = ["stages=[attack,report]", f"ckpt_path={run}", "attack=strong", "attack.items=24", "attack.batch_size=24"]
    on_checkpoint([*words, "attack.steps=4", "attack.restarts=1", "attack.queries=20", "attack.eps=0.05"], tmp_path)
    metrics, arrays = metrics_of(tmp_path), read_predictions(tmp_path, "attack.npz")
    shares = [metrics[f"attack/{name}/accuracy"] for name in ("clean", "apgd_ce", "apgd_t", "square", "worst")]
    assert shares == sorted(shares, reverse=True) and shares[-1] == shares[-2]
    assert arrays["tried_square"].sum() == round(24 * shares[2]), "each is tried on what still stands"
    page = (tmp_path / "report.md").read_text()
    assert f"20, on the {arrays['tried_square'].sum()} still standing |" in page and "Queries alone add little" in page


def test_two_processes_attack_as_one_does(run, tmp_path):
    words = ["stages=[attack]", f"ckpt_path={run}", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    for done in train_as_two(*words, "hydra.run.dir=two", folder=tmp_path):
        assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "two")["attack/worst/accuracy"] == metrics_of(run)["attack/worst/accuracy"]


def test_what_chooses_the_checkpoint_is_measured_and_of_attacked_images(caplog):
    for adversary, monitor in (({}, "val/robust_accuracy"), ({"method": "pgd"}, "val/aimed_accuracy")):
        with pytest.raises(UsageError, match=f"task.monitor is {monitor}, which is measured only with"):
            Adversary.of(adversary).check_monitor(monitor)
    for adversary, monitor in (({"method": "pgd"}, "val/robust_accuracy"), ({"aimed": True}, "val/aimed_accuracy")):
        Adversary.of(adversary).check_monitor(monitor)
    Adversary.of({}).check_monitor("val/loss")
    assert not caplog.records
    Adversary.of({"method": "pgd"}).check_monitor("val/loss")
    assert "the best checkpoint is chosen by val/loss, of images left alone" in caplog.text


def test_catastrophic_overfitting_is_noticed_and_said_once(caplog):
    seen, caplog_said = Overfitting(), "Catastrophic overfitting: PGD-10 leaves 2.0 % of validation images right, after"
    assert [seen.noticed(*pair) for pair in [(0.3, 0.4), (0.4, 0.5), (0.02, 0.8), (0.01, 0.9)]] == [False] * 2 + [
        True
    ] * 2
    assert caplog.text.count(caplog_said) == 1


def made(share_right: float, share_at_all: float = 0.0) -> dict[str, np.ndarray]:
    """What a stage leaves of 2,000 images, two classes: all right when clean, `share_right` under PGD."""
    count = 2000
    logits = np.tile([1.0, 0.0], (count, 1))
    pgd = np.where((np.arange(count) < share_right * count)[:, None], logits, logits[:, ::-1])
    arrays = {"logits": logits, "logits_pgd": pgd, "logits_fgsm": logits[:, ::-1], "label": np.zeros(count, int)}
    at_one = np.arange(count) < share_at_all * count
    return arrays | {"right_at_all": at_one, "zero_gradient": np.zeros(count, bool)}


def test_an_attack_that_goes_astray_is_told():
    good, bad = ([check.verdict for check in checks(made(*shares), [])] for shares in ((0.0,), (0.5, 0.1)))
    assert good == ["holds"] * 3
    assert bad == ["**does not hold: the gradient is masked, or the steps are too few**",
                   "**does not hold: the steps go astray**", "holds"]  # fmt: skip
    assert attack_figures(made(0.5))["attack/worst/accuracy"] == 0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("attack.eps=8", "attack.eps is 8, but it must be from 0 to 1, the range of an intensity: pixels\\? write"),
        ("attack.eps=-0.1", "attack.eps is -0.1, but it must be from 0 to 1"),
        ("attack.norm=L1", "attack.norm is L1"),
        ("attack.items=361", "attack.items is 361, but the test split has 360 images: choose 360 or fewer"),
        ("attack.loss=crossentropy", r"attack.loss is crossentropy \(did you mean 'cross_entropy'\?\)"),
        ("attack.attacks=[pdg]", r"attack.attacks names pdg \(did you mean 'pgd'\?\)"),
        ("attack.steps=0", "attack.steps is 0, but it must be from 1"),
        ("attack.curve=[a]", "attack.curve is .*multiples of eps above 0"),
        ("attack.curve=[-1]", "attack.curve is .*multiples of eps above 0"),
        ("attack.attacks=[]", "attack.attacks is empty: choose from noise"),
        ("attack.attacks=[cw]", "attack.cw_items is 0, but attack.attacks names cw: give 1 or more"),
    ],
)
def test_a_mistake_is_one_sentence(word, said, run, tmp_path):
    with pytest.raises(UsageError, match=said):
        on_checkpoint(["stages=[attack]", f"ckpt_path={run}", word], tmp_path)


def test_a_mistake_is_found_before_the_training(tmp_path):
    with pytest.raises(UsageError, match="pixels"):
        run_here([*SMALL, "stages=[fit,attack]", "attack.eps=8"], tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "pdg"}, r"is pdg \(did you mean 'pgd'\?\): choose pgd, fgsm_rs, trades or null"),
        ({"eps": "8"}, "pixels"),
        ({"method": "fgsm_rs", "steps": 3}, "fgsm_rs takes one step: choose pgd"),
        ({"metod": "pgd"}, r"has no metod \(did you mean 'method'\?\)"),
        ({"craft_mode": "both"}, "choose eval or train"),
    ],
)
def test_an_impossible_training_is_one_sentence(given, said):
    with pytest.raises(UsageError, match=said):
        Adversary.of(given)


def test_a_checkpoint_older_than_the_group_gets_todays_default(run, tmp_path):
    checkpoint = read_checkpoint(run / "checkpoints/best.ckpt")
    del checkpoint["config"]["attack"], checkpoint["config"]["choices"]["attack"]
    del checkpoint["config"]["task"]["module"]["adversarial"]
    torch.save(checkpoint, tmp_path / "older.ckpt")
    on_checkpoint(["stages=[attack]", f"ckpt_path={tmp_path / 'older.ckpt'}", "attack.items=16"], tmp_path / "run")
    assert metrics_of(tmp_path / "run")["attack/images"] == 16
