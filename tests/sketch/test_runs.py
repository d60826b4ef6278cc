"""Runs of the task: figures, going on, stages by command, animations, the judge, what cannot be."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.doodles import Doodles
from datamodules.errors import UsageError
from datamodules.glyphs import Glyphs
from datamodules.quickdraw import QuickDraw
from datamodules.strokes.batches import Jitter
from datamodules.strokes.forms import from_polylines, to_polylines
from datamodules.strokes.symbols import draw_symbol
from lightning_modules.sketch import Sketch, animation
from lightning_modules.sketch.baselines import memoryless_nats
from lightning_modules.sketch.bitmaps import FILE, NAMES, bitmap_figures, rendered
from lightning_modules.sketch.judge import judged, train_judge
from lightning_modules.sketch.judging import batch_of, chosen_judge, novelty, symbol_figures
from lightning_modules.sketch.likeness import chamfer, in_unit_box, spread
from reporting.load import load_run, read_checkpoint
from reporting.report import ComparedRun
from running.check import check_command
from tests.conftest import real_data, run_here
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


# Animations


def some_lines(count: int = 3):
    rng = np.random.default_rng(0)
    return [draw_symbol(name, rng)[0] for name in ("face", "star", "circle")[:count]]


def test_an_svg_is_well_formed_with_a_path_for_each_stroke():
    root = ElementTree.fromstring(animation.svg([*some_lines(), []], seconds=3.5, columns=2, title="a < b"))
    name = "{http://www.w3.org/2000/svg}"
    paths = root.findall(f".//{name}path")
    assert len(paths) == 6 and root.find(f"{name}title").text == "a < b"
    for path in paths:
        animate = path.find(f"{name}animate")
        times = [float(time) for time in animate.get("keyTimes").split(";")]
        assert animate.get("dur") == "3.5s" and times == sorted(times) and times[0] == 0 and times[-1] == 1
    assert root.get("viewBox") == f"0 0 {2 * animation.CELL} {2 * animation.CELL}"


def test_a_gif_has_its_frames_and_ends_with_the_whole(tmp_path):
    animation.save_gif(tmp_path / "a.gif", some_lines(), seconds=2, frames=12)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12 and gif.info["loop"] == 0
        dark = []
        for frame in range(12):
            gif.seek(frame)
            dark.append((np.asarray(gif.convert("L")) < 128).sum())
    assert dark == sorted(dark) and dark[-1] > 5 * dark[0] > 0


def test_a_part_of_a_drawing_is_as_long_as_its_share():
    lines = [np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 2.0]])]
    assert animation.spans(lines) == [(0.0, 0.75), (0.75, 1.0)]
    (half,) = animation.partly(lines, 0.5)
    np.testing.assert_allclose(half, [[0, 0], [2, 0]])
    whole = animation.partly(lines, 1.0)
    assert all(np.array_equal(a, b) for a, b in zip(whole, lines, strict=True))


# The judge, and what else is asked


@pytest.fixture(scope="module")
def doodles() -> Doodles:
    data = Doodles(300, 20, 60)
    data.prepare_data()
    return data


def test_a_judge_knows_real_drawings_and_leaves_the_random_state(doodles):
    train, test = doodles.splits["train"], doodles.splits["test"]
    before, given = torch.get_rng_state(), (doodles.scale, 5)
    made = train_judge(train.strokes, train.labels, *given, 80, Jitter(0.0, 0.0, False), 0)
    taken = judged(made, batch_of(test, doodles.scale)).numpy()
    assert (taken == test.labels).mean() > 0.6
    two = [train_judge(train.strokes, train.labels, *given, 2, Jitter(0.1, 0.1, False), 0) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*(each.parameters() for each in two), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_letters_have_a_judge_and_one_class_has_none():
    letters, faces = Glyphs(visits=1), Doodles(50, 20, 20, classes=["face"])
    for data in (letters, faces):
        data.prepare_data()
    train = letters.splits["train"]
    made = train_judge(train.strokes, train.labels, letters.scale, 5, 2, letters.jitter(), 0)
    assert len(judged(made, batch_of(letters.splits["test"], letters.scale))) == 25
    assert chosen_judge(None, faces) == (None, {"no_judge": "the drawings have one class"})


def test_whoever_copies_is_found_among_many(monkeypatch):
    monkeypatch.setattr("lightning_modules.sketch.judging.PIECE", 250)
    data = Doodles(3000, 20, 50)
    data.prepare_data()
    train = data.splits["train"]
    copies = [to_polylines(strokes) for strokes in train.strokes]
    assert novelty(copies, train.labels, data) < 1e-6
    rng = np.random.default_rng(7)
    fresh = [draw_symbol(data.names[label], rng)[0] for label in train.labels[:50]]
    assert 0.7 < novelty(fresh, train.labels[:50], data) < 1.4


def test_pictures_are_not_judged_by_what_may_have_trained_the_judge(tmp_path):
    lines = [{"word": word, "key_id": str(n), "recognized": True, "drawing": [[[n, 9, 4], [0, 3, 7]]]}
             for word in ("cat", "fish") for n in range(25)]  # fmt: skip
    (tmp_path / "own.ndjson").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / FILE).parent.mkdir()
    np.savez(tmp_path / FILE, images=np.zeros((100, 28, 28), np.uint8), labels=np.arange(100) // 50)
    data = QuickDraw(str(tmp_path), str(tmp_path / "own.ndjson"))
    data.prepare_data()
    assert bitmap_figures(data, some_lines(2), np.array([0, 1]), 0) == {}


def test_symbols_are_counted():
    lines = some_lines()
    found = symbol_figures([*lines, lines[0][:2]], ["face", "star", "circle", "face"])
    assert found["strokes_right"] == 0.75 and found["faces_right"] == 0.5
    assert {entry["class"] for entry in found["frequencies"]} == {"face", "star", "circle"}


def test_a_drawing_without_memory_costs_more_where_there_is_order(doodles):
    train, test = doodles.splits["train"].strokes, doodles.splits["test"].strokes
    nats = memoryless_nats(train, test, doodles.scale, 5, 0)
    rng = np.random.default_rng(0)
    noise = [np.column_stack([rng.normal(size=(20, 2)), np.arange(20) == 19]) for _ in range(400)]
    entropy = 20 * (1 + np.log(2 * np.pi))  # of a standard Gaussian in the plane
    assert memoryless_nats(noise[:300], noise[300:], 1.0, 1, 0) == pytest.approx(entropy, abs=8)
    assert np.isfinite(nats) and nats > 20


def test_the_nearest_drawing_is_found_wherever_it_lies():
    lines = some_lines()
    table = chamfer([[3 * line + 100 for line in lines[1]], lines[0]], lines)
    assert table.argmin(1).tolist() == [1, 0] and table.min(1) == pytest.approx(0, abs=1e-9)
    one, other = (in_unit_box(own) for own in lines[:2])
    away = np.linalg.norm(one[:, None] - other[None], axis=-1)
    assert table[1, 1] == pytest.approx((away.min(0).mean() + away.min(1).mean()) / 2)
    assert spread(10, 3).tolist() == [0, 4, 9] and len(spread(2, 5)) == 2


def test_a_picture_lies_in_the_middle():
    page = rendered([np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 100.0], [0.0, 100.0], [0.0, 0.0]])])
    assert page.shape == (28, 28) and page.max() > 200 and page[14, 14] == 0
    np.testing.assert_allclose(page.astype(int), page[::-1].astype(int), atol=80)
    assert not rendered([]).any()


@pytest.mark.slow
def test_pictures_of_quick_draw_are_known_by_their_judge():
    data = QuickDraw(str(real_data("quickdraw").parent), classes=list(NAMES), length=200)
    data.prepare_data()
    test = data.splits["test"]
    found = bitmap_figures(data, [to_polylines(s) for s in test.strokes], test.labels, 0)
    assert found["pictures_real"] >= 0.85 and found["recognised_as_pictures"] > 0.6
    assert from_polylines(to_polylines(test.strokes[0])).shape == test.strokes[0].shape
