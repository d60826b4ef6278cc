"""RESULTS.md says what the kept runs and sweeps say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from lightning_modules.classification import Classification
from reporting.folder import REPOSITORY
from reporting.published import Figure, Origin, command_for
from reporting.results.beside import beside, headline, published_row
from reporting.results.keep import keep, portable_command
from reporting.results.kept import CLASS_FIGURE, Kept, kept_sweeps
from reporting.results.page import all_published, kept_runs, origins, results_page
from reporting.results.runs import class_page, run_tables
from running.composed import compose_config

RESULTS = REPOSITORY / "results"
RUNS, SWEEPS, ORIGINS, PUBLISHED = kept_runs(RESULTS), kept_sweeps(RESULTS), origins(), all_published()
PAGE = (REPOSITORY / "RESULTS.md").read_text(encoding="utf-8")


def a_run(name: str = "a", task: str = "classification", settings: dict[str, Any] | None = None, **metrics: float):
    """A kept run on MNIST; `__` in a metric's name stands for a slash."""
    plain = {metric.replace("__", "/"): value for metric, value in metrics.items()}
    provenance = {"command": f"python train.py {name}", "machine": "a machine", "commit": "abc"}
    return Kept(name, task, "mnist", settings or {"data": "mnist"}, plain, provenance)


def a_setting(of: str = "sweep", seeds: int = 3, varied: dict[str, str] | None = None, **metrics: float) -> Kept:
    run = a_run(of, settings={"data": "mnist", **(varied or {"model": "cnn"})}, **metrics)
    intervals = dict.fromkeys(run.metrics, 0.01) if seeds > 1 else {}
    return Kept(run.name, run.task, run.data, run.settings, run.metrics, run.provenance,
                varied or {"model": "cnn"}, intervals, seeds)  # fmt: skip


def a_figure(metric: str = "test/accuracy", value: float = 0.5, words: tuple[str, ...] = ("data=mnist",), **more: Any):
    return Figure("somebody's network", "mnist", metric, value, "a book", words, **more)


def test_the_page_is_the_one_made_from_what_is_kept():
    assert results_page(RESULTS) == PAGE, "run `python -m reporting.results`"
    for run in RUNS:
        page, expected = RESULTS / run.name / "classes.md", class_page(run, PUBLISHED)
        assert (page.read_text(encoding="utf-8") if page.exists() else None) == expected, run.name


def test_every_published_figure_is_there():
    """A figure of each of the tables, with ours or without."""
    pattern = r"\| Diagonal BiLSTM \| test bits/dim \| 3 \| ([\d.]+) \| (\+[\d.]+) \| ▼ \| \[pixelrnn/cifar10"
    ours, difference = re.search(pattern, PAGE).groups()
    assert float(difference) == pytest.approx(float(ours) - 3)
    section = PAGE.split("## Published figures")[1].split("## Every run")[0]
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| ") and "| published |" not in row]
    values = {float(row[2]) for row in rows}
    assert {figure.value for figure in PUBLISHED if not CLASS_FIGURE.fullmatch(figure.metric)} == values
    spec = {7.8994, 7.3342, 7.1786, 3.14, 3.07, 2.93, 81.3, 79.2, 0.8197, 0.3786, 0.7256, 0.7913, 5.04, 1.44, 11.2}
    assert spec <= values
    assert "| 0.9287 | 0.9510 | 0.9397 | 0.8831 |" in (RESULTS / "classification/cifar10_record/classes.md").read_text()


def test_every_row_is_named_and_what_nobody_ran_says_its_command():
    found = [beside(figure, [*RUNS, *SWEEPS]) for figure in PUBLISHED]
    assert all(one.figure.name for one in found)
    for one in found:
        if one.figure.words and not one.ours and not one.without:
            assert command_for(one.figure, ORIGINS).startswith("python train.py ")
    assert re.search(
        r"\| Row LSTM, 12 layers \| test bits/dim \| 3.06 \| not run \|  \|  \| `python train.py sweep=", PAGE
    )
    assert "| uniform guess: log₂ 256 | test bits/dim | 8 | – |" in PAGE


def test_what_a_sweep_ran_is_not_called_not_run():
    rows = [row for row in PAGE.splitlines() if re.match(r"\| (LSTM, (random|temporal) split|CNN, batch 16) \|", row)]
    assert len(rows) > 8 and not [row for row in rows if "not run" in row]
    assert any("sweeps/cnn_ablation_cifar10" in row for row in rows)


def test_it_opens_with_ours_beside_theirs_and_a_picture():
    opening = PAGE.split("## Published figures")[0]
    assert re.search(r"\| CNN, 64 filters, depth 7 \| cifar10 \| test accuracy \| 0.892 \|.*▲ better", opening)
    assert re.search(r"\| Diagonal BiLSTM \| cifar10 \|.*▼ worse", opening) and "/samples.png)" in opening
    for link in re.findall(r"\]\((results/[^)]+)\)", PAGE):
        assert (REPOSITORY / link).exists(), link


def test_beside_a_published_figure_stands_what_is_best_on_validation_data():
    """Also of a metric that only the test split has, where the highest is best as where the lowest is."""
    runs = [a_run(n, val__accuracy=v, test__f1=0.9 - v) for n, v in (("a", 0.7), ("b", 0.8))]
    row = published_row(a_figure("test/f1"), runs)
    assert "| 0.1000 | -0.4000 | ▼ | [b](results/b) | 2: 0.1000 – 0.2000 |" in row
    runs = [a_run(n, "pixelrnn", val__bits_per_dim=v, test__f1=0.4) for n, v in (("a", 0.8), ("b", 0.7))]
    assert "| [b](results/b) |" in published_row(a_figure("test/f1"), runs)


def test_a_lower_loss_is_better_and_what_has_no_validation_figure_comes_last():
    figure = a_figure("test/loss", lower=True)
    assert beside(figure, [a_run(test__loss=0.4)]).mark == "▲" and beside(figure, [a_run(test__loss=0.6)]).mark == "▼"
    runs = [a_run("a", test__loss=0.1), a_run("b", val__loss=0.4, test__loss=0.6)]
    assert [run.name for run in beside(figure, runs).ours] == ["b", "a"]


def test_a_run_kept_from_a_sweep_is_not_counted_twice():
    run = a_run("sweep", settings={"data": "mnist", "model": "cnn"}, val__accuracy=0.9, test__accuracy=0.8)
    one, three = (a_setting(seeds=seeds, val__accuracy=0.9, test__accuracy=0.8) for seeds in (1, 3))
    assert beside(a_figure(), [run, one]).ours == [run]
    assert beside(a_figure(), [run, three]).ours == [three]
    other = a_setting(varied={"model": "vit"}, val__accuracy=0.8, test__accuracy=0.7)
    assert beside(a_figure(), [run, other]).ours == [run, other]
    assert "0.8000 ± 0.0100" in published_row(a_figure(), [three])


def test_a_run_of_stages_only_does_not_count_its_checkpoints_figures_again():
    fitted, staged = a_run("fitted", val__accuracy=0.9, seconds__fit=1.0), a_run("staged", val__accuracy=0.9)
    assert beside(a_figure("val/accuracy"), [fitted, staged]).ours == [fitted]
    assert beside(a_figure("val/accuracy"), [staged]).ours == [staged]


def test_a_figure_that_was_measured_and_not_kept_says_so():
    kept = Kept("s", "classification", "mnist", {"data": "mnist"}, {}, {}, {"model": "cnn"}, not_kept=["test/accuracy"])
    assert "| not kept |  |  | [s](results/s/summary.md), model=cnn |" in published_row(a_figure(), [kept])


def test_figures_of_a_stage_stand_beside_those_published_by_their_full_name():
    """A run of stages only: nothing fitted, no steps, no parameters."""
    run = a_run(attack__worst__accuracy=0.4, svm__test__accuracy=0.75, seconds__attack=3.0)
    (table,) = [line for line in run_tables([run]) if line.startswith("- a:")]
    assert table == "- a: attack worst accuracy 0.4000, svm test accuracy 0.7500"
    assert "| 0.7500 | +0.2500 | ▲ | [a](results/a) |" in published_row(a_figure("svm/test/accuracy"), [run])
    (line,) = [line for line in headline([a_figure("attack/worst/accuracy")], [run], []) if "somebody" in line]
    assert "| attack worst accuracy | 0.5 | 0.4000 | -0.1000 | ▼ worse |" in line


def test_the_command_of_what_nobody_ran_is_the_shortest():
    figure = a_figure(words=("model=cnn", "model.depth=3", "task.module.severity=[1,2]"))
    wide = Origin("sweep=wide", {"data": "mnist"}, [figure])
    near = Origin("experiment=near", {"data": "mnist", "model": "cnn", "model.depth": 3}, [figure])
    assert command_for(figure, [wide, near]) == "python train.py experiment=near 'task.module.severity=[1,2]'"
    assert command_for(figure, [Origin("sweep=other", {}, []), Origin("", {}, [figure])]) == ""


def test_a_run_of_stages_only_is_kept_without_the_paths_of_its_machine(tmp_path):
    config = {
        "choices": {"task": "classification", "data": "mnist"},
        "data": {"path": "/elsewhere", "batch_size": 4},
        "paths": {"data": "/elsewhere", "cache": "/cache"},
        "ckpt_path": "/elsewhere/best.ckpt",
        "provenance": {
            "command": "python train.py stages=[attack] ckpt_path=/elsewhere/best.ckpt paths.data=/elsewhere"
        },
    }
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    (tmp_path / "metrics.json").write_text(json.dumps({"seconds/attack": 2.0}))
    with pytest.raises(UsageError, match="holds no figures"):
        keep(tmp_path, tmp_path / "kept", [])
    (tmp_path / "metrics.json").write_text(json.dumps({"attack/worst/accuracy": 0.5, "seconds/attack": 2.0}))
    keep(tmp_path, tmp_path / "kept", [])
    assert "elsewhere" not in (tmp_path / "kept/config.yaml").read_text()
    assert json.loads((tmp_path / "kept/metrics.json").read_text())["attack/worst/accuracy"] == 0.5


def test_a_kept_checkpoint_is_named_as_from_the_repository():
    command = f"python train.py stages=[test] ckpt_path={REPOSITORY}/results/a/best.ckpt hydra.run.dir=/tmp/x"
    assert portable_command(command) == "python train.py stages=[test] ckpt_path=results/a/best.ckpt"
    assert portable_command("python train.py start=/home/me/runs/a") == "python train.py start=…"


def test_a_classifiers_run_is_kept_with_its_classes():
    """Two classes, one of four images wrong: by hand."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    arrays = {"label": np.array([0, 0, 1, 1]), "probabilities": probabilities, "class_names": np.array(["cat", "dog"])}
    figures = Classification.kept_figures(arrays)
    assert figures["test/precision/cat"] == 1.0 and figures["test/recall/cat"] == 0.5
    assert figures["test/precision/dog"] == 0.6667 and len(figures) == 6


def test_classes_have_a_page_of_their_own():
    run = a_run(test__recall__cat=0.5, test__precision__cat=1.0, test__precision__dog=0.75, test__accuracy=0.9)
    page = class_page(run, [a_figure("test/recall/cat", 0.25), a_figure("test/recall/cat", 0.1, ("data=other",))])
    assert "| class | test precision | test recall | test recall, published |" in page
    assert "| cat | 1.0000 | 0.5000 | 0.2500 |" in page and "| dog | 0.7500 |  |  |" in page
    assert class_page(a_run(test__accuracy=0.9), []) is None


def test_every_kept_run_names_a_clean_commit_and_nobodys_folders():
    assert RUNS and SWEEPS
    for one in [*RUNS, *SWEEPS]:
        commit = one.provenance["commit"]
        assert commit != "unknown" and "+" not in commit, one.name
    for path in [*RESULTS.rglob("*.yaml"), *RESULTS.rglob("*.md")]:
        assert not re.search(r"(^|[\s='\"(])/(tmp|home|root|work|mnt)/", path.read_text(encoding="utf-8")), path


def test_a_damaged_or_outdated_folder_is_one_sentence(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/sweep.yaml").write_text("task: classification\n")
    with pytest.raises(UsageError, match="holds no kept sweep, or a damaged one"):
        kept_sweeps(tmp_path)
    with pytest.raises(UsageError, match="results/ keeps a run of task=gone"):
        run_tables([a_run(task="gone", test__accuracy=0.5)])


def test_a_page_of_nothing_still_says_what_was_published(tmp_path: Path):
    page = results_page(tmp_path)
    assert "not run" in page and "## Every sweep" not in page


def test_the_commands_of_what_nobody_ran_compose():
    commands = dict.fromkeys(re.findall(r"\| `(python train\.py [^`]+)` \|", PAGE.split("## Every run")[0]))
    assert commands
    for command in commands:
        words = shlex.split(command)[2:]
        settings = OmegaConf.to_container(compose_config(words), resolve=False)
        for key, value in (word.split("=") for word in words if "." in word):
            given = OmegaConf.from_dotlist([f"value={value}"]).value  # true as True
            assert OmegaConf.select(OmegaConf.create(settings), key) == given, command
