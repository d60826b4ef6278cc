"""Runs of the task: figures, going on, stages by command, comparisons, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from lightning_modules.sketch import Sketch
from reporting.load import load_run, read_checkpoint
from reporting.report import ComparedRun
from running.check import check_command
from tests.conftest import run_here
from tests.sketch.smallest import SMALLEST

PLAIN = ["trainer.precision=32-true", "trainer.max_epochs=2"]
RNN = ["task=sketch", "model=sketch_rnn", *SMALLEST.words_of("sketch_rnn"), *PLAIN]
DECODER = ["task=sketch", "model=sketch_decoder", *SMALLEST.words, *PLAIN]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    published = "[{source: a paper, data: doodles, split: test, figures: {l_r: -1.46, l_kl: 1.01}}]"
    run_here([*RNN, f"published={published}"], folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    run_here([*DECODER, "stages=[fit]"], folder)
    return folder


def figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def on_checkpoint(words: list[str], folder: Path) -> None:
    run_here([*check_command(words), *words], folder)


def test_figures_agree_with_each_other(run):
    found, kept = figures(run), np.load(run / "predictions.npz")
    assert found["test/l_r"] == pytest.approx(found["test/l_s"] + found["test/l_p"])
    assert found["test/loss"] == pytest.approx(found["test/l_r"] + 0.5 * found["test/l_kl"])
    assert found["test/nats_per_sketch"] == pytest.approx(kept["nats_per_sketch"].mean(), rel=1e-5)
    length = load_run(run).spec.length
    assert found["test/nats_per_sketch"] == pytest.approx(length * found["test/l_r"], rel=1e-5)
    bound = found["test/nats_per_sketch"] + 4 * found["test/l_kl"]
    assert found["test/elbo_nats"] == pytest.approx(bound, rel=1e-5) and 16 <= len(kept["label"]) <= 20
    judged_file = json.loads((run / "judged.json").read_text())
    assert set(judged_file["temperatures"]) == {"0.2", "0.5", "1"} and 0 <= found["test/retrieval_top1"] <= 1
    assert "recognised" in judged_file["temperatures"]["0.5"] or "no_judge" in judged_file
    assert judged_file["real"]["strokes_right"] == judged_file["real"]["faces_right"] == 1
    assert judged_file["real"]["closure"] < 0.05
    assert found["test/frequency_p"] <= 1 and found["test/nats_memoryless"] > 0


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text(encoding="utf-8")
    titles = ["Likelihood", "Drawn at five temperatures", "Drawing itself", "What a judge says", "How they are drawn"]
    for title in [*titles, "Redrawn", "Completed", "From one to another", "a − b + c", "Curves"]:
        assert f"## {title}\n" in text, title
    assert "| test |  |  | -1.46 |  |  | 1.01 |  | a paper |" in text
    for name in ("sheet", "pairs", "completed", "morph", "analogy"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<animate attributeName=" in page and "<script" not in page


@pytest.mark.parametrize("words", [[*RNN, "model.dropout.p=0.2"], [*DECODER, "model.dropout={p: 0.2, kind: memory}"]])
def test_a_run_that_goes_on_in_the_middle_of_an_epoch_is_the_whole_run(words, tmp_path):
    words = [*words, "stages=[fit]", "trainer.val_check_interval=1", "scheduler=constant", "data.scale_jitter=0.1"]
    run_here(words, tmp_path / "whole")
    run_here([*words, "trainer.max_steps=6"], tmp_path / "halves")
    place = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")["loader_place"]["batches_done"]
    assert place > 0, "it must stop in the middle, or this test shows nothing"
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=-1", *words[:2]],
             tmp_path / "halves")  # fmt: skip
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] == 8
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name


# Stages by command


def test_drawings_are_left_in_every_form_and_are_the_same_again(decoder, tmp_path):
    words = ["stages=[draw]", f"ckpt_path={decoder}", "class=face", "draws=3", "temperature=0.4"]
    on_checkpoint(words, tmp_path / "one")
    folder = tmp_path / "one" / "drawings"
    assert sorted(path.name for path in folder.iterdir()) == ["face.gif", "face.json", "face.svg"]
    drawn = json.loads((folder / "face.json").read_text())
    assert len(drawn) == 3 and drawn[0]["temperature"] == 0.4 and len(drawn[0]["drawing"][0]) == 2
    on_checkpoint([*words, "format=json"], tmp_path / "two")
    assert [path.name for path in (tmp_path / "two/drawings").iterdir()] == ["face.json"]
    assert json.loads((tmp_path / "two/drawings/face.json").read_text()) == drawn
    on_checkpoint([*words, "format=json", "seed=9"], tmp_path / "three")
    assert json.loads((tmp_path / "three/drawings/face.json").read_text()) != drawn


def test_a_drawing_is_gone_on_from(decoder, tmp_path):
    begun = [[[0, 20.5, 40], [10, 0, 10]]]
    (tmp_path / "my.json").write_text(json.dumps({"drawing": begun}))
    words = ["stages=[complete]", f"ckpt_path={decoder}", f"sketch={tmp_path / 'my.json'}", "class=circle", "draws=2"]
    on_checkpoint([*words, "format=json"], tmp_path / "run")
    given, *drawn = json.loads((tmp_path / "run/drawings/completed.json").read_text())
    assert given["drawing"] == begun or np.allclose(given["drawing"], begun, atol=0.01)
    on_checkpoint(["stages=[complete]", f"ckpt_path={decoder}", "draws=2", "format=json"], tmp_path / "own")
    own = json.loads((tmp_path / "own/drawings/completed.json").read_text())
    assert len(own) == 3 and own[1]["drawing"][0][0][0] == own[0]["drawing"][0][0][0]
    for entry in drawn:
        points = np.concatenate([np.array(line).T for line in entry["drawing"]])
        np.testing.assert_allclose(points[:3], np.array(begun[0]).T, atol=0.02)


def test_a_morph_leads_from_one_to_the_other(run, decoder, tmp_path):
    words = ["stages=[morph]", "from=circle", "to=star", "steps=4", "format=json"]
    for number, folder in enumerate((run, decoder)):
        on_checkpoint([*words, f"ckpt_path={folder}"], tmp_path / str(number))
        assert len(json.loads((tmp_path / f"{number}/drawings/morph.json").read_text())) == 4
    (tmp_path / "my.json").write_text("[[[0, 20, 40], [10, 0, 10]]]")
    from_file = ["stages=[morph]", f"from={tmp_path / 'my.json'}", "to=star", "steps=3"]
    on_checkpoint([*from_file, f"ckpt_path={run}"], tmp_path / "file")
    with pytest.raises(UsageError, match="A decoder alone cannot encode"):
        on_checkpoint([*from_file, f"ckpt_path={decoder}"], tmp_path / "no")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stages=[draw]", "class=fase"], "knows no class 'fase': the nearest it knows are face"),
        (["stages=[draw]", "temperature=0"], "temperature is 0, but it must be above 0"),
        (["stages=[complete]", "sketch=LONG"], "points, but this network draws .* at most: give fewer"),
        (["stages=[morph]", "from=circle"], "needs to=…"),
        (["stages=[morph]", "from=circle", "to=dog"], "knows no class 'dog'"),
    ],
)
def test_what_cannot_be_drawn_is_said(words, said, decoder, tmp_path):
    (tmp_path / "long.json").write_text(json.dumps([[list(range(90)), list(range(90))]]))
    words = [word.replace("LONG", str(tmp_path / "long.json")) for word in words]
    with pytest.raises(UsageError, match=said):
        on_checkpoint([*words, f"ckpt_path={decoder}"], tmp_path / "run")


def test_one_that_can_only_redraw_says_so_before_it_trains(tmp_path):
    words = [*RNN, "model.attention=encoder"]
    with pytest.raises(UsageError, match="cannot draw from a class: leave out the stage draw"):
        run_here(words, tmp_path / "no")
    run_here([*words, "stages=[fit,test,judge,report]"], tmp_path / "run")
    text = (tmp_path / "run/report.md").read_text()
    assert "## Redrawn" in text and "## Drawing itself" not in text


def test_drawings_without_classes_and_padded_losses(tmp_path):
    path = tmp_path / "some.npz"
    rng = np.random.default_rng(0)
    parts = {}
    for split, count in {"train": 12, "valid": 4, "test": 4}.items():
        own = np.empty(count, object)
        own[:] = [
            np.column_stack([rng.integers(-9, 9, (n, 2)), np.arange(n) == n - 1]) for n in rng.integers(4, 9, count)
        ]
        parts[split] = own
    np.savez(path, **parts)
    words = ["task=sketch", "model=sketch_rnn", "data=kanji", f"data.path={path}", "data.batch_size=6", *PLAIN]
    small = ["model.encoder=6", "model.latent=4", "model.decoder=8", "task.module.judged=3", "draws=2"]
    run_here([*words, *small, "task.module.pad_loss=true"], tmp_path / "run")
    found = figures(tmp_path / "run")
    assert "test/recognised" not in found and found["test/retrieval_chance"] == 0.25
    assert found["test/nats_per_sketch"] < load_run(tmp_path / "run").spec.length * found["test/l_r"]
    assert (tmp_path / "run/drawings/drawing.svg").exists()


def test_runs_are_compared_by_their_drawings(run, decoder, tmp_path):
    names = {"circle": run, "other": run, "alone": decoder}
    compared = [ComparedRun(n, f, load_run(f).config, {**figures(f), "test/l_kl": 0.1 * (n != "alone")}, {})
                for n, f in names.items()]  # fmt: skip
    table, trade = Sketch.comparison(compared, tmp_path)
    assert "| run | right strokes |" in table.text and "| alone |" in table.text
    assert (tmp_path / trade.figure).stat().st_size > 1000
    assert len(Sketch.comparison(compared[2:], tmp_path)) == 1
