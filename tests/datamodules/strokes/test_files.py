"""Files of drawings: the forms they come in, what is refused, and the real ones."""

from __future__ import annotations

import gzip
import json
import os
import pickle

import numpy as np
import pytest

from datamodules.errors import UsageError
from datamodules.strokes.batches import ragged
from datamodules.strokes.files import read_drawing, read_npz
from datamodules.strokes.kanji import Kanji
from datamodules.strokes.quickdraw import QuickDraw
from tests.conftest import real_data


def as_objects(strokes: list[np.ndarray]) -> np.ndarray:
    return ragged([s.astype(np.int16) for s in strokes])


def npz(path, **arrays):
    np.savez(path, **{name: as_objects(own) for name, own in arrays.items()})
    return path


def test_a_sketch_rnn_file_is_read_and_copies_are_dropped(tmp_path):
    rng = np.random.default_rng(0)
    own = [np.column_stack([rng.integers(-9, 9, (n, 2)), np.arange(n) == n - 1]) for n in (5, 7, 6, 4, 6)]
    path = npz(tmp_path / "cat.npz", train=[*own[:3], own[0], own[3]], valid=own[3:4], test=own[4:])
    assert [len(part) for part in read_npz(path).values()] == [5, 1, 1]
    data = Kanji(str(tmp_path), str(path), dequantize=True)
    data.prepare_data()
    assert len(data.splits["train"].labels) == 3 and data.copies == 2 and data.spec.classes == 0
    again = Kanji(str(tmp_path), str(path), dequantize=True)
    again.prepare_data()
    np.testing.assert_array_equal(data.splits["test"].strokes[0], again.splits["test"].strokes[0])
    two = QuickDraw(str(tmp_path), str(tmp_path))
    npz(tmp_path / "dog.npz", train=own[:2], valid=own[:1], test=own[2:3])
    two.prepare_data()
    assert two.spec.names == ("cat", "dog") and two.splits["train"].labels.tolist() == [0] * 5 + [1] * 2


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_file_that_could_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.npz"
    array = np.empty(1, object)
    array[0] = Evil()
    np.savez(path, train=array, valid=array, test=array)
    with pytest.raises(UsageError, match=r"it asks for posix\.system, which is no array"):
        read_npz(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is damaged or not a sketch-rnn npz"):
        read_npz(path)
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(UsageError, match="damaged"):
        read_npz(path)


def entry(number: int, word: str = "cat", drawing=None) -> str:
    drawing = drawing or [[[number, 9, 4], [0, 3, 7]], [[1, 2], [number, 4]]]
    return json.dumps({"word": word, "key_id": str(10**15 - number), "recognized": number % 5 > 0, "drawing": drawing})


def test_ndjson_is_divided_by_keys(tmp_path):
    path = tmp_path / "some.ndjson.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join([*(entry(n) for n in range(25)), *(entry(n, "dog") for n in range(25))]))
    data = QuickDraw(str(tmp_path), str(path), length=9)
    data.prepare_data()
    assert {split: len(own.labels) for split, own in data.splits.items()} == {"train": 40, "val": 4, "test": 6}
    assert data.splits["test"].strokes[0][0].tolist() == [1, 0, 0], "the last keys are those of the first lines"
    assert data.splits["train"].clear.mean() == pytest.approx(0.8)
    path.unlink()
    (tmp_path / "few.ndjson").write_text("\n".join(entry(n) for n in range(3)))
    with pytest.raises(UsageError, match="The class 'cat' has too few drawings for three splits"):
        QuickDraw(str(tmp_path), str(tmp_path)).prepare_data()
    (tmp_path / "few.ndjson").write_text(entry(1) + "\n{}")
    with pytest.raises(UsageError, match=r"few.ndjson: line 2 is damaged or not a drawing"):
        QuickDraw(str(tmp_path), str(tmp_path)).prepare_data()


def test_data_that_are_not_there_are_named(tmp_path):
    for make in (QuickDraw, Kanji):
        with pytest.raises(UsageError, match="or take data=doodles, which needs no download"):
            make(str(tmp_path)).prepare_data()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "has 0 points"),
        ("[[[3],[4]]]", "has 1 points, but a drawing to go on from needs two or more"),
        ("[[1,2],[3,4]]", "holds no drawing|no drawing"),
        ('{"drawing": 3}', "holds no drawing"),
        ("[[[1,2],[3]]]", "holds no drawing"),
        ("nonsense", "is no JSON"),
        ("[[[1,2],[3,NaN]]]", "no finite number"),
    ],
)
def test_a_file_of_no_drawing_is_one_sentence(content, said, tmp_path):
    path = tmp_path / "my.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        read_drawing(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_drawing(tmp_path / "none.json")


# The real files


def test_the_kanji_are_as_published():
    data = Kanji(str(real_data("sketch_rnn").parent))
    data.prepare_data()
    assert {split: len(own.labels) for split, own in data.splits.items()} == {"train": 9947, "val": 600, "test": 500}
    assert data.copies == 53 and data.spec.length == 89
    assert data.scale == pytest.approx(99.71, abs=0.01)


def test_quick_draw_is_as_published():
    data = QuickDraw(str(real_data("quickdraw").parent), length=200)
    data.prepare_data()
    assert data.spec.classes == 344 and sum(len(own.labels) for own in data.splits.values()) == 8600 - 26
    assert data.left_out == {"train": 20, "val": 4, "test": 2}
    assert np.concatenate([own.clear for own in data.splits.values()]).mean() == pytest.approx(0.92, abs=0.01)
