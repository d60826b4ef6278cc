"""The sweeper that varies one key at a time: what it runs, what it carries on, what it refuses."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from datamodules.errors import UsageError
from hydra_plugins.one_at_a_time import OneAtATime, plan
from running.check import check_command
from running.composed import compose_config
from tests.forked import train

BEST = {"optimizer.lr": {"0.1": -math.inf, "0.01": 0.5}, "data.batch_size": {"16": 1.0}, "model.filters": {"64": 1.0}}


def run(arguments, score, folder) -> list[tuple[int, list[str]]]:
    """(number, words) of every job that the sweeper launches, with the score of its words for a result."""
    config, launched = compose_config(["sweep=cnn_ablation", f"hydra.sweep.dir={folder}"]), []

    def launch(jobs, initial_job_idx):
        launched.extend(enumerate(jobs, initial_job_idx))
        return [SimpleNamespace(return_value=score(dict(word.split("=") for word in job))) for job in jobs]

    sweeper = OneAtATime(dict(config.hydra.sweeper.params))
    sweeper.config, sweeper.launcher = config, SimpleNamespace(launch=launch)
    loader = SimpleNamespace(load_sweep_config=lambda master_config, sweep_overrides: config)
    sweeper.hydra_context = SimpleNamespace(config_loader=loader)
    sweeper.sweep(["sweep=cnn_ablation", *arguments])
    return launched


def score(words):
    """Batches of 16 and 64 filters help; the rate is best as it is; the depth makes no difference."""
    return sum(BEST.get(key, {}).get(value, 0.0) for key, value in words.items()) + (
        0.6 if "optimizer.lr" not in words else 0.0
    )


def test_each_keys_best_value_is_carried_on(tmp_path):
    jobs = run([], score, tmp_path)
    assert [number for number, _ in jobs] == list(range(9)), "12 settings, three of them known before"
    assert [words[1:] for _, words in jobs] == [
        [],
        ["optimizer.lr=0.01"],
        ["optimizer.lr=0.1"],
        ["data.batch_size=16"],
        ["data.batch_size=32"],
        ["data.batch_size=16", "model.filters=16"],
        ["data.batch_size=16", "model.filters=64"],
        ["data.batch_size=16", "model.filters=64", "model.depth=3"],
        ["data.batch_size=16", "model.filters=64", "model.depth=7"],
    ]
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert [(stage["key"], stage["carried"]) for stage in stages] == [
        ("optimizer.lr", 0.001),
        ("data.batch_size", 16),
        ("model.filters", 64),
        ("model.depth", 5),  # of equal ones the one before
    ]
    assert sum(len(stage["trials"]) for stage in stages) == 12


def test_every_setting_has_every_seed_and_the_mean_decides(tmp_path):
    """The first rate is better with the first seed only."""
    words = ["seed=1,2", "optimizer.lr=0.001,0.01", "data.batch_size=64", "model.filters=32", "model.depth=5"]
    value = {("", "1"): 0.9, ("", "2"): 0.1, ("0.01", "1"): 0.6, ("0.01", "2"): 0.6}
    jobs = run(words, lambda job: value[job.get("optimizer.lr", ""), job["seed"]], tmp_path)
    assert [job[-1] for _, job in jobs] == ["seed=1", "seed=2"] * 2
    (stage,) = json.loads((tmp_path / "stages.json").read_text())
    assert stage["carried"] == 0.01


def test_a_stage_without_any_result_ends_it(tmp_path):
    with pytest.raises(UsageError, match=r"No value of optimizer\.lr came to a result"):
        run([], lambda words: -math.inf, tmp_path)


def test_a_key_that_is_in_no_group_is_varied_like_others(tmp_path):
    run(["average=0.0,0.9"], lambda words: float("average" in words), tmp_path)
    (told,) = [stage for stage in json.loads((tmp_path / "stages.json").read_text()) if stage["key"] == "average"]
    assert told["carried"] == 0.9


def test_a_list_is_a_value_like_others(tmp_path):
    run(["stages=[fit],[fit,test]"], lambda words: float("stages" in words), tmp_path)
    (told,) = [stage for stage in json.loads((tmp_path / "stages.json").read_text()) if stage["key"] == "stages"]
    assert told["carried"] in (["fit"], ["fit", "test"])


def test_a_key_that_follows_another_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"scheduler\.max_lr is \$\{optimizer\.lr\} here: .*vary that one"):
        run(["scheduler.max_lr=0.001,0.01"], score, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=cnn,vit"], "model is a group"),
        (["optimizer.lr=interval(0,1)"], "has no list of values"),
        (["seed=1,2"], "needs keys with several values"),
    ],
)
def test_what_is_no_ablation_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        plan(OverridesParser.create().parse_overrides(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.depth=3,deep"], "model.depth is 'deep', but it must be a whole number"),
        (["trainer=ddp"], "has one process a job: leave out trainer=ddp"),
        (["model.breadth=1,2"], "There is no option 'model.breadth'"),
    ],
)
def test_a_mistake_is_refused_before_the_first_job(words, message):
    with pytest.raises(UsageError, match=message):
        check_command(["sweep=cnn_ablation", *words])


def test_an_ablation_as_a_user_runs_it(tmp_path):
    words = ["sweep=cnn_ablation", "debug=quick", "optimizer.lr=0.01", "data.batch_size=64", "model.filters=4,8"]
    words += ["model.depth=3,5", "hydra.sweep.dir=sweep"]
    done = train(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "sweep/summary.md").read_text()
    assert "3 runs: 3 finished." in page and "## Stage by stage" in page
    section = page.split("## Stage by stage")[1].split("## Settings")[0]
    rows = [line for line in section.splitlines() if line.startswith(("| 0 |", "| 1 |", "| 2 |", "| 3 |"))]
    assert len(rows) == 4 and sum("←" in row for row in rows) == 2
    again = train(*words, folder=tmp_path)
    assert again.stdout.count("done before") == 3
