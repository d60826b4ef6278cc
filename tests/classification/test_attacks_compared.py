"""Attacked runs side by side: the table, the claim, transfer, spectra, attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from lightning_modules.classification.robustness.compared import Group, attack_sections, difference, grouped
from lightning_modules.classification.robustness.spectra import radial_spectrum
from lightning_modules.classification.robustness.transfer import transfer_figures
from reporting.compare import main, read_runs
from reporting.report import ComparedRun
from running.composed import compose_config
from tests.conftest import run_here

FEW = ["attack.items=24", "attack.eps=0.1", "attack.steps=2", "attack.attacks=[fgsm,pgd]", "attack.curve=[0.5,1]"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    words = ["task=classification", "trainer.precision=32-true", "patience=null", "stages=[fit,test,attack]", *FEW]
    found = []
    for model, small in {
        "cnn": ["model.filters=4", "model.depth=3"],
        "vit": ["model.width=8", "model.depth=1"],
    }.items():
        for seed in (1, 2):
            found.append(tmp_path_factory.mktemp(f"{model}{seed}"))
            run_here([*words, f"model={model}", *small, f"seed={seed}", "trainer.max_epochs=2"], found[-1])
    return found


def test_the_page_sets_the_networks_against_each_other(folders, tmp_path):
    page = main([*map(str, folders), "--output", str(tmp_path / "page.html")]).read_text()
    for title in ("Under attack", "Is one network more robust than the other?", "Accuracy against ε", "Transfer",
                  "What the perturbations are made of", "Where it looks before and after: vit, ordinary"):  # fmt: skip
        assert f">{title}</h2>" in page


def test_its_tables_say_what_was_found(folders, tmp_path):
    runs = read_runs(folders)
    sections = {section.title: section for section in attack_sections(runs, tmp_path)}
    assert [group.name for group in grouped(runs)] == ["cnn, ordinary", "vit, ordinary"]
    table = sections["Under attack"].text
    assert "24 test images, Linf ≤ 0.1, PGD-2 × 1" in table and "| cnn, ordinary | 2 |" in table
    clean = 100 * np.mean([run.metrics["attack/clean/accuracy"] for run in runs[:2]])
    assert f"| cnn, ordinary | 2 | {clean:.1f} ± " in table
    claim = sections["Is one network more robust than the other?"].text
    assert "| ordinary | in the worst case | cnn − vit |" in claim
    assert "| the network itself |" in sections["Transfer"].text
    for section in sections.values():
        assert section.figure is None or (tmp_path / section.figure).stat().st_size > 1000


def test_runs_that_were_not_attacked_show_nothing(folders, tmp_path):
    runs = [run._replace(folder=tmp_path) for run in read_runs(folders)]
    assert attack_sections(runs, tmp_path) == []


def test_transfer_is_between_different_runs_alone():
    """Crafted on a it breaks all of a, half of b; nothing is averaged into the diagonal but another seed's."""
    whole, half, none = np.ones(100, bool), np.arange(100) < 50, np.zeros(100, bool)
    right = {("a", "a"): none, ("b", "b"): none, ("a", "b"): half, ("b", "a"): whole}
    text, shares = transfer_figures({"A": ["a"], "B": ["b"]}, right, {"a": whole, "b": whole})
    np.testing.assert_array_equal(shares, [[np.nan, 0.5], [1.0, np.nan]])
    assert "| A | – | 50.0% (40.0% … 60.0%) |" in text and "| the network itself | 0.0% (0.0% … 0.0%) |" in text
    text, shares = transfer_figures({"both": ["a", "b"]}, right, {"a": whole, "b": half})
    assert shares == pytest.approx(np.array([[0.75]])) and "| nothing | 75.0% " in text


def test_a_spectrum_is_of_the_frequency_that_is_there():
    noise = np.random.default_rng(0).standard_normal((500, 3, 16, 16))
    radii, power = radial_spectrum(noise)
    assert (np.diff(radii) > 0).all() and radii[-1] <= 0.5**0.5
    np.testing.assert_allclose(power, 1, atol=0.06)
    wave = np.broadcast_to(np.cos(2 * np.pi * np.arange(16) / 4), (2, 1, 16, 16))
    radii, power = radial_spectrum(wave + 5)
    assert abs(radii[power.argmax()] - 0.25) < 0.06 and (power > 1e-9).sum() == 1, "the mean is no frequency"
    board = np.indices((8, 8)).sum(0) % 2 * np.ones((1, 1, 8, 8))
    radii, power = radial_spectrum(board)
    assert power.argmax() == len(power) - 1


def test_one_is_called_better_by_its_interval_alone():
    one, other = (Group(name, name, "ordinary", []) for name in ("cnn", "vit"))
    assert difference([5.0, 5.2, 4.8], one, other) == "+5.0 ± 0.5 | **cnn is better**"
    assert difference([-5.0, -5.2, -4.8], one, other).endswith("**vit is better**")
    assert difference([5.0, -4.0, 3.0], one, other).endswith("no difference found")
    assert difference([5.0], one, other) == "+5.0 | one seed cannot tell"


def test_runs_that_differ_in_more_than_the_seed_are_groups_of_their_own():
    def run(name: str, *words: str) -> ComparedRun:
        config = compose_config(["task=classification", *words])
        config = OmegaConf.create({**OmegaConf.to_container(config, resolve=False), "choices": {"model": "cnn"}})
        return ComparedRun(name, Path(), config, {}, {})

    runs = [run("a", "seed=1"), run("b", "seed=2"), run("c", "seed=1", "model.filters=8")]
    runs.append(run("d", "task.module.adversarial.method=pgd"))
    found = {group.name: [one.name for one in group.runs] for group in grouped(runs)}
    assert found == {"cnn, ordinary": ["a", "b"], "cnn, ordinary 2": ["c"], "cnn, pgd": ["d"]}
