"""The summary of a sweep: its statistics, and its page from made-up run folders."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from scipy import stats

from datamodules.errors import UsageError
from reporting.results.keep import keep_sweep
from reporting.results.kept import kept_sweeps
from reporting.runs import Run, Setting, find_runs, group, read_summaries, varied_keys, with_interval
from reporting.statistics import half_interval, holm, mean, welch
from reporting.summary import figures as summary_figures
from reporting.summary.figures import Places, save_against
from reporting.summary.page import outline, write_summary
from tests.conftest import REPOSITORY

SAMPLES = [([1.0, 2.0, 4.0], [1.1, 0.9, 5.0, 2.0]), ([3.01, 3.02], [3.2, 3.1, 3.3]), ([1.0, 1.5], [2.0, 2.5, 2.25])]
PUBLISHED = [
    {
        "source": "a paper",
        "data": "cifar10",
        "levels": 256,
        "metric": "bits_per_dim",
        "split": "test",
        "figures": {"Row LSTM": 3.07},
    }
]


@pytest.mark.parametrize(("first", "second"), SAMPLES)
def test_intervals_and_welch_are_scipys(first, second):
    low, high = stats.t.interval(0.95, len(first) - 1, mean(first), stats.sem(first))
    assert half_interval(first) == pytest.approx((high - low) / 2)
    assert welch(first, second) == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)


def test_one_seed_or_no_spread_cannot_break_the_statistics():
    assert math.isnan(half_interval([1.0]))
    assert welch([1.0, 1.0], [2.0, 2.0]) == 0 and welch([2.0, 2.0], [2.0, 2.0]) == 1


def test_holms_correction():
    """By hand: 0.01·4, 0.02·3, then 0.03·2 = 0.06, which may not fall below the one before, and 0.9."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == []


def make_run(folder: Path, *, value: float | None = None, failure: str = "", seed: int = 1, **keys: Any) -> None:
    """A run's folder as train.py leaves it; `keys` with `__` for dots."""
    config = OmegaConf.create(
        {
            "seed": seed,
            "data": {"_target_": "d", "seed": seed, "path": "/somewhere", "batch_size": 64},
            "paths": {"data": "/somewhere"},
            "optimizer": {"lr": 0.003},
            "model": {"_target_": "m", "hidden": 8, "kernel": 3},
            "trainer": {"max_epochs": 2},
            "task": {"monitor": "val/bits_per_dim", "mode": "min", "shown": ["bits_per_dim"]},
            "choices": {"task": "pixelrnn", "model": "pixelcnn", "data": "digits", "optimizer": "adam"},
            "published": PUBLISHED,
            "provenance": {"command": "python train.py -m …", "commit": "abc", "machine": "m"},
        }
    )
    words = []
    for key, setting in keys.items():
        dotted = key.replace("__", ".")
        OmegaConf.update(config, dotted, setting)
        words.append(f"{dotted.removeprefix('choices.')}={setting}")
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create([*words, f"seed={seed}"]), folder / ".hydra/overrides.yaml")
    OmegaConf.save(config, folder / "config.yaml")
    (folder / "metrics.csv").write_text(f"step,epoch,val/bits_per_dim\n10,0,5\n20,1,{value or 4}\n")
    if value is not None:
        metrics = {"val/bits_per_dim": value, "test/bits_per_dim": value + 0.1, "parameters": 10, "seconds/fit": 90.0}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if failure:
        (folder / "failure.json").write_text(json.dumps({"error": "UsageError", "message": failure}))


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two learning rates × three seeds, one diverged, one killed; the larger rate is better by far."""
    for number, seed in enumerate((1, 2, 3)):
        make_run(tmp_path / str(number), value=3.0 + 0.01 * seed, seed=seed, optimizer__lr=0.003)
        make_run(tmp_path / str(number + 3), value=2.0 + 0.01 * seed, seed=seed, optimizer__lr=0.03)
    make_run(tmp_path / "6", failure="Training diverged: val/bits_per_dim is nan.", optimizer__lr=1e30)
    make_run(tmp_path / "10", optimizer__lr=0.3)
    return tmp_path


def test_an_ablation_over_optimizers_has_its_stages(tmp_path):
    key = "optimizer._target_"
    for number, (name, value) in enumerate([("torch.optim.Adam", 3.0), ("torch.optim.RMSprop", 2.0)]):
        make_run(tmp_path / str(number), value=value, **{"optimizer___target_": name})
    stage = {"key": key, "trials": [{key: "torch.optim.Adam"}, {key: "torch.optim.RMSprop"}]}
    (tmp_path / "stages.json").write_text(json.dumps([stage | {"carried": "torch.optim.RMSprop"}]))
    write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "|  | optimizer | train bits/dim | val bits/dim |" in page
    assert "| 1 | **torch.optim.RMSprop** ← |  | 2.0000 |" in page


def test_the_page_has_the_answer(sweep):
    (summary,) = write_summary([sweep], sweep)
    page = (sweep / "summary.md").read_text()
    assert "8 runs: 6 finished, 1 failed, 1 unfinished." in page
    expected = half_interval([2.01, 2.02, 2.03])
    assert f"| 0.03 | 3 | 2.0200 ± {expected:.4f} | 2.1200 ± {expected:.4f} | 10 | 1.5 |" in page
    assert page.index("| 0.03 | 3 |") < page.index("| 0.003 | 3 |"), "the best first"
    assert "| optimizer.lr=0.03 | optimizer.lr=0.003 | 1.0000 |" in page and "| **yes** |" in page
    assert "- **6**: Training diverged: val/bits_per_dim is nan." in page
    assert "- **10** `optimizer.lr=0.3`: 20 steps validated; anew" in page
    assert "| Row LSTM | cifar10 | test bits/dim | 3.07 | other data | a paper |" in page
    for name in ("ranking", "by_optimizer_lr", "curves"):
        assert f"(figures/{name}.png)" in page
        assert (sweep / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    html = (sweep / "summary.html").read_text()
    assert html.count("data:image/png;base64,") == 3 and ".png" not in html
    assert not [path for path in sweep.rglob(".*") if path.is_file()], "half-written files"
    lines = outline([summary]).splitlines()
    assert "2.0200" in lines[1] and lines[-1] == f"summary: {sweep / 'summary.html'}"


def test_the_csv_has_numbers_in_full(sweep):
    write_summary([sweep], sweep)
    with (sweep / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.lr"] for row in rows] == ["0.03", "0.003"]
    assert float(rows[0]["val/bits_per_dim"]) == pytest.approx(2.02)
    assert float(rows[0]["val/bits_per_dim ±"]) == pytest.approx(half_interval([2.01, 2.02, 2.03]))


def test_a_metric_to_be_high_is_sorted_downwards(tmp_path):
    task = {"monitor": "val/accuracy", "mode": "max", "shown": ["accuracy"]}
    for number, value in enumerate((0.5, 0.9, 0.7)):
        make_run(tmp_path / str(number), model__hidden=number, task=task)
        (tmp_path / str(number) / "metrics.json").write_text(json.dumps({"val/accuracy": value}))
    (summary,) = write_summary([tmp_path], tmp_path)
    assert [setting.keys["model.hidden"] for setting in summary.settings] == [1, 2, 0]
    assert "highest first" in (tmp_path / "summary.md").read_text()


def test_one_seed_cannot_tell(tmp_path):
    for number, hidden in enumerate((4, 8)):
        make_run(tmp_path / str(number), value=3.0 - number, model__hidden=hidden)
    write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "One seed cannot tell" in page and "| 8 | 1 | 2.0000 | 2.1000 |" in page


def test_what_follows_from_a_choice_is_no_varied_key(tmp_path):
    """A model brings its own width and optimizer; a key that a word names is varied even so."""
    for number, (model, hidden, optimizer) in enumerate([("pixelcnn", 8, "adam"), ("row_lstm", 6, "rmsprop")]):
        make_run(tmp_path / str(number), value=3.0, choices__model=model, optimizer__lr=0.1 * (number + 1))
        config = OmegaConf.load(tmp_path / str(number) / "config.yaml")
        config.model.hidden, config.choices.optimizer = hidden, optimizer
        OmegaConf.save(config, tmp_path / str(number) / "config.yaml")
    assert varied_keys(find_runs([tmp_path])) == (["model", "optimizer.lr"], ["optimizer", "model.hidden"])


def test_a_named_key_that_older_runs_lack_is_varied(tmp_path):
    make_run(tmp_path / "old", value=3.0)
    make_run(tmp_path / "new", value=2.0, model__head_gain=4.0)
    assert varied_keys(find_runs([tmp_path]))[0] == ["model.head_gain"]


def test_a_key_in_a_config_alone_is_found(tmp_path):
    """Runs without overrides.yaml, as results/ keeps them."""
    for number, hidden in enumerate((4, 8)):
        make_run(tmp_path / str(number), value=3.0, model__hidden=hidden)
        (tmp_path / str(number) / ".hydra/overrides.yaml").unlink()
    assert varied_keys(find_runs([tmp_path]))[0] == ["model.hidden"]


def test_the_same_seed_twice_is_no_second_draw(tmp_path):
    for name, value in (("a", 3.0), ("b", 2.0)):
        make_run(tmp_path / name / "0", value=value, model__hidden=4)
    runs = find_runs([tmp_path / "a", tmp_path / "b"])
    (setting,) = group(runs, varied_keys(runs)[0])
    assert setting.monitored == [2.0]


def test_published_figures_stand_beside_ours_on_the_same_data(tmp_path):
    make_run(tmp_path / "0", value=3.3, choices__data="cifar10")
    write_summary([tmp_path], tmp_path)
    assert "| Row LSTM | cifar10 | test bits/dim | 3.07 | 3.4000 | a paper |" in (tmp_path / "summary.md").read_text()


def test_a_published_setting_stands_beside_the_same_of_ours(tmp_path):
    """The worse setting of two is the one named; a third was not run."""
    entry = {"source": "a book", "data": "digits", "split": "test", "metric": "bits_per_dim"}
    figures = {"narrow": 2.5, "wide": 2.25, "wider": 2.125}
    ours = {name: f"model.hidden={hidden}" for name, hidden in zip(figures, (4, 8, 16), strict=True)}
    for number, hidden in enumerate((4, 8)):
        published = [{**entry, "figures": figures, "ours": ours}]
        make_run(tmp_path / str(number), value=3.0 - number, model__hidden=hidden, published=published)
    write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "| narrow | digits | test bits/dim | 2.5 | 3.1000 | a book |" in page
    assert "| wide | digits | test bits/dim | 2.25 | 2.1000 | a book |" in page
    assert "| wider | digits | test bits/dim | 2.125 | not run | a book |" in page


def test_several_tasks_are_one_page(tmp_path):
    make_run(tmp_path / "0", value=1.5)
    task = {"monitor": "val/accuracy", "mode": "max", "shown": []}
    make_run(tmp_path / "1", choices__task="classification", task=task)
    (tmp_path / "1/metrics.json").write_text('{"val/accuracy": 0.75}')
    summaries = write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert page.startswith("# Summary: pixelrnn on digits; classification on digits\n")
    assert "\n## classification on digits\n" in page and "\n### Settings\n" in page and "| 1 | 0.7500 |" in page
    assert "(figures/pixelrnn/ranking.png)" in page and (tmp_path / "figures/classification/ranking.png").exists()
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["val/accuracy"]) for row in rows] == [("pixelrnn", ""), ("classification", "0.75")]
    assert outline(summaries).count("1 finished") == 2


def test_many_settings_are_compared_with_the_best(tmp_path):
    for number in range(10):
        for seed in (1, 2):
            make_run(tmp_path / f"{number}_{seed}", value=number + 0.1 * seed, seed=seed, model__hidden=number)
    write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "the best setting with each other one, 9 in all" in page


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        ([0.1, 0.001, 0.01], "log", [0.001, 0.01, 0.1]),
        ([16, 64, 32], "log", [16, 32, 64]),
        ([0.1, 0.3, 0.2], "linear", [0.1, 0.2, 0.3]),
        ([3, 5, 7], "linear", [3, 5, 7]),
        ([0, 0.1], "linear", [0, 0.1]),
        ([0.001, 0.1], "log", [0.001, 0.1]),
        ([0.0, 0.99, 0.998], "one by one", [0, 1, 2]),
        ([4], "linear", [4]),
        (["row_lstm", "pixelcnn", "row_lstm"], "one by one", [0, 1]),
        ([True, False], "one by one", [0, 1]),
        ([None, 3], "one by one", [0, 1]),
    ],
)
def test_where_the_values_of_a_key_stand(values, scale, places):
    found = Places(values)
    assert found.scale == scale and list(found.places.values()) == places


@pytest.mark.parametrize(
    ("key", "values", "joined"), [("model", ("a", "b", "c"), False), ("model.layers", (1, 2, 3), True)]
)
def test_numbers_are_joined_by_a_line_and_choices_are_not(key, values, joined, tmp_path, monkeypatch):
    """Either way points for seeds, and means with intervals."""
    drawn = []
    monkeypatch.setattr(summary_figures, "save", lambda figure, path: drawn.append(figure))
    settings = [
        Setting({key: value}, {seed: Run(tmp_path, {}, {"val/loss": number + 0.1 * seed}, {}, []) for seed in (1, 2)})
        for number, value in enumerate(values)
    ]
    save_against(tmp_path / "by.png", key, settings, "val/loss")
    (axis,) = drawn[0].axes
    assert any(line.get_linestyle() == "-" and len(line.get_xdata()) == 3 for line in axis.lines) is joined
    (means,) = axis.containers
    assert means.has_yerr and list(means.lines[0].get_ydata()) == pytest.approx([0.15, 1.15, 2.15])
    assert sum(line.get_marker() == "o" for line in axis.lines) == 3


def test_a_sweep_is_kept_and_read_back(sweep, tmp_path):
    """Of all its runs only what they share, and every figure's mean for each setting."""
    kept = tmp_path / "results/sweeps/rates"
    (sweep / "note.md").write_text("a note")
    with pytest.raises(UsageError, match="has no file 'other"):
        keep_sweep(sweep, kept, ["other.md"])
    keep_sweep(sweep, kept, ["note.md"])
    best, other = kept_sweeps(tmp_path / "results")
    assert (best.name, best.task, best.data, best.varied) == (
        "sweeps/rates",
        "pixelrnn",
        "digits",
        {"optimizer.lr": "0.03"},
    )
    assert best.seeds == 3 and best.metrics["test/bits_per_dim"] == pytest.approx(2.12)
    assert best.intervals["val/bits_per_dim"] == pytest.approx(half_interval([2.01, 2.02, 2.03]))
    assert best.settings["model.hidden"] == 8 and "data.path" not in best.settings
    assert other.settings["optimizer.lr"] == "0.003" and best.provenance["commit"] == "abc"
    names = {path.name for path in kept.iterdir()}
    assert names == {"sweep.yaml", "summary.md", "summary.csv", "figures", "note.md"}


def test_a_sweep_of_several_tasks_is_not_kept(tmp_path):
    make_run(tmp_path / "0", value=1.5)
    make_run(tmp_path / "1", value=1.5, choices__data="photos")
    with pytest.raises(UsageError, match="is no sweep to keep"):
        keep_sweep(tmp_path, tmp_path / "kept", [])


def test_only_failures_still_make_a_page(tmp_path):
    make_run(tmp_path / "0", failure="It cannot | work.", model__hidden=3)
    write_summary([tmp_path], tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "No run has finished yet." in page and "It cannot | work." in page


def test_a_metric_that_is_no_number_is_not_finished(tmp_path):
    make_run(tmp_path / "0", value=math.nan)
    assert read_summaries([tmp_path], tmp_path)[0].ended("unfinished")


def test_cut_files_do_not_stop_it(sweep):
    (sweep / "0/metrics.json").write_text('{"val/bits')
    (sweep / "1/config.yaml").write_text("a: [")
    (sweep / "1/.hydra/config.yaml").write_text("")
    (summary,) = write_summary([sweep], sweep)
    assert len(summary.runs) == 7 and len(summary.ended("unfinished")) == 2


def test_figures_have_fewer_places_when_large():
    assert with_interval([84.9412]) == "84.94" and with_interval([]) == ""


def test_bad_folders_are_one_sentence(tmp_path):
    make_run(tmp_path / "one/0", value=1.0)
    (tmp_path / "empty").mkdir()
    for folders, message in [
        (["nowhere"], "There is no folder"),
        (["empty"], "There is no run in"),
    ]:
        with pytest.raises(UsageError, match=message):
            write_summary([tmp_path / name for name in folders], tmp_path)
    words = [sys.executable, "-m", "reporting.summary", str(tmp_path / "empty")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "There is no run in" in done.stderr
    assert not list((tmp_path / "empty").iterdir())
