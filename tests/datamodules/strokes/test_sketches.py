"""Drawings: their forms, batches, those that are drawn by a program or cut from fonts, and what is wrong with some."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from datamodules.errors import UsageError
from datamodules.strokes.batches import Jitter, PadDrawings, ragged
from datamodules.strokes.doodles import Doodles
from datamodules.strokes.forms import (
    checked,
    dequantized,
    drop_points,
    from_five,
    from_polylines,
    simplified,
    to_five,
    to_polylines,
)
from datamodules.strokes.glyphs import FAMILIES, Glyphs
from datamodules.strokes.sketches import Drawings, SketchDataModule, drawings
from datamodules.strokes.symbols import (
    SYMBOLS,
    chance,
    closure_error,
    draw_symbol,
    features_inside,
    frequencies,
    read_symbol,
)

LINES = [np.array([[3.0, 1.0], [5.0, 2.0], [4.0, 7.0]]), np.array([[9.0, 9.0]]), np.array([[0.0, 4.0], [2.0, 2.0]])]


# Forms


def test_the_forms_lead_back_to_each_other():
    strokes = from_polylines(LINES)
    assert strokes.tolist()[0] == [3, 0, 0], "from the top left corner of the bounding box, (0, 1), to the first point"
    assert strokes[:, 2].tolist() == [0, 0, 1, 1, 0, 1]
    for line, found in zip(LINES, to_polylines(strokes), strict=True):
        np.testing.assert_allclose(found, line - [0, 1])
    five = to_five(strokes, 9)
    assert five[0].tolist() == [3, 0, 1, 0, 0] and five[2].tolist() == [-1, 5, 0, 1, 0]
    assert (five[6:] == [0, 0, 0, 0, 1]).all() and (five[:, 2:].sum(1) == 1).all()
    np.testing.assert_allclose(from_five(five), strokes)


def test_points_are_dropped_inside_strokes_alone():
    rng = np.random.default_rng(0)
    strokes = from_polylines([rng.normal(size=(n, 2)) for n in (30, 2, 1, 20)])
    found = drop_points(strokes, 0.5, rng)
    assert 10 < len(found) < 45 and found[:, 2].sum() == 4
    np.testing.assert_allclose(found[:, :2].sum(0), strokes[:, :2].sum(0))
    for kept, line in zip(to_polylines(found), to_polylines(strokes), strict=True):
        np.testing.assert_allclose(kept[[0, -1]], line[[0, -1]])
        assert all(np.abs(line - point).sum(1).min() < 1e-9 for point in kept)
    assert len(drop_points(strokes, 0.999, rng)) == 7
    assert drop_points(strokes, 0.0, rng) is strokes


def test_points_move_within_their_unit_square():
    strokes = np.column_stack([np.random.default_rng(1).integers(-9, 9, (40, 2)), np.zeros(40)])
    moved = dequantized(strokes, np.random.default_rng(0))
    away = np.cumsum(moved[:, :2], axis=0) - np.cumsum(strokes[:, :2], axis=0)
    assert np.abs(away).max() <= 0.5 and np.abs(away).max() > 0.4


def test_an_outline_is_simplified():
    angles = np.linspace(0, 2 * np.pi, 101)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    found = simplified(circle, 0.02)
    assert 8 < len(found) < 30 and np.allclose(found[[0, -1]], circle[[0, -1]])
    assert len(simplified(np.column_stack([np.arange(9.0), np.zeros(9)]), 0.1)) == 2


@pytest.mark.parametrize(
    ("strokes", "said"),
    [
        ([[0, 1, 0], [np.nan, 1, 1]], "no finite number in row 1"),
        ([[0, 1, 0], [1, 1, 2]], "lift flag 2 in row 1, but it must be 0 or 1"),
        ([[0, 1]], r"array \(1, 2\) of int64, but a drawing is \(points, 3\)"),
        (np.empty((0, 3)), "has no points"),
    ],
)
def test_what_is_no_drawing_is_named(strokes, said):
    with pytest.raises(UsageError, match=f"drawing 7.*{said}"):
        checked(np.array(strokes), "drawing 7")


# Batches


def test_a_batch_is_as_long_as_its_longest_drawing():
    two = ragged([from_polylines(LINES), from_polylines(LINES[:1])])
    batch = PadDrawings(2.0)((two, np.array([4, 1])), np.array([7, 3]), 0)
    assert batch.strokes.shape == (2, 7, 5) and batch.strokes[0, 0].tolist() == [1.5, 0, 1, 0, 0]
    assert batch.strokes[1, 3:, 4].tolist() == [1, 1, 1, 1] and batch.labels.tolist() == [4, 1]


def test_jitter_is_a_function_of_its_generator():
    jitter, arrays = Jitter(0.15, 0.3, True), (ragged([from_polylines(LINES)] * 3), np.zeros(3))
    first, again, other = (jitter(arrays, np.random.default_rng(n), np.arange(3), 0)[0] for n in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


class Own(SketchDataModule):
    """Of drawings that a test gives."""

    own: dict[str, Drawings]
    named: tuple[str, ...] = ()

    def load_drawings(self):
        return self.own, self.named


def own_data(train, val=None, test=None, **how) -> Own:
    data = Own(**how)
    parts = {"train": train, "val": val or train[:1], "test": test or train[:1]}
    data.own = {split: drawings(part, [0] * len(part)) for split, part in parts.items()}
    return data


def straight(points: int, step: float = 1.0) -> np.ndarray:
    return np.column_stack([np.full(points, step), np.arange(points), np.arange(points) == points - 1]).astype(float)


def test_the_scale_is_of_training_offsets_alone_and_long_tests_are_counted():
    train = [straight(4), straight(6, 2.0)]
    for test in ([straight(3, 50.0)], [straight(3), straight(9)]):
        data = own_data(train, test=test)
        data.prepare_data()
        assert data.spec.scale == pytest.approx(np.concatenate([s[:, :2] for s in train]).std())
        assert data.spec.length == 7
    assert "too long and left out: 1 of test" in data.note and len(data.splits["test"].labels) == 1
    short = own_data(train, length=5)
    short.prepare_data()
    assert short.spec.length == 5 and "1 of train" in short.note


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: own_data([straight(4), straight(5)], length=3), "the shortest has 4 points; raise data.length"),
        (lambda: own_data([np.zeros((3, 3)), np.zeros((4, 3))]), "All offsets of the training drawings are 0"),
        (lambda: own_data([straight(3), straight(4)]), "begin with the offset .1, 0., whose density has no bound"),
        (lambda: own_data([straight(3)], classes=["cat"]), "names 'cat', but this data has no classes"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make().prepare_data()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"length": 1}, "data.length is 1"),
        ({"scale_jitter": 1.0}, "data.scale_jitter is 1.0"),
        ({"drop_points": -0.1}, "data.drop_points is -0.1"),
        ({"train_items": 4}, "data.train_items is 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(how, said):
    with pytest.raises(UsageError, match=said):
        Doodles(**how)


# Doodles


def test_how_a_symbol_was_drawn_is_read_back():
    rng = np.random.default_rng(5)
    for number in range(1000):
        symbol = SYMBOLS[number % 5]
        lines, how = draw_symbol(symbol, rng)
        assert read_symbol(lines, symbol) == how
        moved = to_polylines(from_polylines(lines))
        assert read_symbol(moved, symbol) == how
        if symbol == "face":
            assert features_inside(lines) and not features_inside([lines[0], lines[1] + 200, *lines[2:]])
        if symbol == "square":
            assert closure_error(lines[0]) < 0.05
    assert read_symbol(lines[:1], "face") is None


def test_chances_are_known_and_one_way_is_told_from_both():
    rng = np.random.default_rng(1)
    for symbol, answers in {"triangle": 3, "square": 4, "star": 5, "face": None}.items():
        found = frequencies([draw_symbol(symbol, rng)[0] for _ in range(400)], symbol)
        assert all(chance(counts) > 0.001 for counts in found.values())
        if answers:
            assert len(found["first corner"]) == answers and chance(found["first corner"]) > 0.001
    one_way = [lines for lines, how in (draw_symbol("circle", rng) for _ in range(100)) if how.clockwise]
    assert chance(frequencies(one_way, "circle")["clockwise"]) < 1e-6
    assert chance(np.array([30, 20])) == pytest.approx(chisquare([30, 20]).pvalue)


def test_doodles_splits_share_nothing_and_stay_the_same():
    data, again, other = (Doodles(50, 20, 20, doodle_seed=seed) for seed in (0, 0, 1))
    for one in (data, again, other):
        one.prepare_data()
    flat = {split: {s.tobytes() for s in own.strokes} for split, own in data.splits.items()}
    assert not flat["train"] & flat["val"] and not flat["train"] & flat["test"] and not flat["val"] & flat["test"]
    assert np.array_equal(data.splits["test"].strokes[3], again.splits["test"].strokes[3])
    assert (
        not np.array_equal(data.splits["test"].strokes[3].shape, other.splits["test"].strokes[3].shape)
        or (data.splits["test"].strokes[3] != other.splits["test"].strokes[3]).any()
    )
    some = Doodles(50, 20, 20, classes=["face", "circle"])
    some.prepare_data()
    assert some.spec.names == ("face", "circle") and set(some.splits["train"].labels) == {0, 1}
    assert [len(to_polylines(s)) for s in some.splits["val"].strokes[some.splits["val"].labels == 0]] == [4] * 4
    with pytest.raises(UsageError, match=r"'faces' \(did you mean 'face'\?\)"):
        Doodles(50, 20, 20, classes=["faces"]).prepare_data()


# Letters


def test_letters_are_divided_by_family():
    data = Glyphs(visits=2)
    data.prepare_data()
    assert {split: len(own.labels) for split, own in data.splits.items()} == {"train": 120, "val": 20, "test": 25}
    assert data.spec.names == tuple("ABCEX") and all("DejaVu" in font for font in FAMILIES["train"])
    contours = {name: {len(to_polylines(s)) for s, n in zip(*data.splits["val"][:2], strict=True) if n == number}
                for number, name in enumerate(data.spec.names)}  # fmt: skip
    assert contours == {"A": {2}, "B": {3}, "C": {1}, "E": {1}, "X": {1}}
    loader = data.train_dataloader()
    first = next(iter(loader)).strokes
    loader.sampler.set_epoch(1)
    assert next(iter(loader)).strokes.shape[0] == 100 and first.shape[2] == 5
    with pytest.raises(UsageError, match="each once"):
        Glyphs(characters="AA")
    with pytest.raises(UsageError, match=r"which the font .* has not"):
        Glyphs(characters="語").prepare_data()
