"""Drawings as animations and pictures, the judges of drawings, and what is asked of drawings beside."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.strokes.batches import Jitter
from datamodules.strokes.doodles import Doodles
from datamodules.strokes.forms import from_polylines, to_polylines
from datamodules.strokes.glyphs import Glyphs
from datamodules.strokes.quickdraw import QuickDraw
from datamodules.strokes.symbols import draw_symbol
from lightning_modules.sketch import animation
from lightning_modules.sketch.baselines import memoryless_nats
from lightning_modules.sketch.bitmaps import FILE, NAMES, bitmap_figures, rendered
from lightning_modules.sketch.judge import folds_of, judged, train_judge
from lightning_modules.sketch.judging import batch_of, chosen_judge, novelty, symbol_figures
from lightning_modules.sketch.likeness import chamfer, in_unit_box, spread
from tests.conftest import real_data

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


def test_few_drawings_all_judge_by_judges_that_did_not_see_them(doodles, monkeypatch):
    seen = []

    def one_that_remembers(strokes, labels, scale, classes, steps, jitter, seed):
        seen.append({own.tobytes() for own in strokes})
        return train_judge(strokes, labels, scale, classes, 1, jitter, seed)

    def knows(judge, strokes):  # only what its judge was not trained on is asked; then it is right
        return torch.from_numpy(asked.pop(0).labels)

    def asked_of(own, scale):
        assert not seen[-1] & {drawing.tobytes() for drawing in own.strokes}
        asked.append(own)

    asked = []
    for name, value in (("train_judge", one_that_remembers), ("judged", knows), ("batch_of", asked_of)):
        monkeypatch.setattr(f"lightning_modules.sketch.judging.{name}", value)
    count = sum(len(own.labels) for own in doodles.splits.values())
    monkeypatch.setattr("lightning_modules.sketch.judging.FEW", count + 1)
    judge, found = chosen_judge(SimpleNamespace(judge_steps=1, seed=0), doodles)
    assert found["judges"] == 5 and found["recognised_real"] == 1 and found["real_drawings"] == count
    points = torch.zeros(2, 4, 5)
    points[..., 2] = 1
    each = torch.stack([one(points).log_softmax(1) for one in judge.each])
    torch.testing.assert_close(judge(points), each.mean(0))
    assert judge.features(points).shape == (2, 5 * 128)
    folds = folds_of(np.array([0] * 7 + [1] * 10), 5, 0)
    assert np.bincount(folds[:7]).max() == 2 and np.bincount(folds[7:]).tolist() == [2] * 5


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
