"""DOTA's files read, written, cut into tiles and refused."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import UsageError
from datamodules.scenes.dota import GREY, Dota, cut, offsets
from datamodules.scenes.dota_text import Labels, read_detections, read_labels, write_detections, write_labels
from datamodules.scenes.quadrilaterals import fault, is_convex, smallest_rectangle
from datamodules.scenes.rectangles import corners
from tests.conftest import real_data


def polygon_area(points):
    x, y = points[..., 0], points[..., 1]
    return abs((x * np.roll(y, -1, -1) - np.roll(x, -1, -1) * y).sum(-1)) / 2


def test_the_smallest_rectangle_of_a_rectangle_is_itself():
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = np.array([*rng.uniform(0, 50, 2), rng.uniform(10, 30), rng.uniform(2, 9), rng.uniform(-1.5, 1.5)])
        assert smallest_rectangle(corners(box)) == pytest.approx(box, abs=1e-9)
        assert smallest_rectangle(np.roll(corners(box), 1, 0)[::-1]) == pytest.approx(box, abs=1e-9)
        points = rng.uniform(0, 50, (4, 2))
        found = smallest_rectangle(points)
        angles = np.linspace(0, math.pi / 2, 400)
        turned = [points @ np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in angles]
        assert found[2] * found[3] <= min(np.ptp(own, axis=0).prod() for own in turned) + 1e-9


def test_faults():
    square = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]])
    assert fault(square) is None and is_convex(square) and is_convex(square[::-1])
    assert fault(square[[0, 2, 1, 3]]) == "its sides cross"
    assert fault(np.array([[0.0, 0], [1, 1], [2, 2], [3, 3]])) == "its corners lie on a line"
    assert fault(np.full((4, 2), np.nan)) == "a coordinate is no finite number"
    assert not is_convex(np.array([[0.0, 0], [4, 0], [1, 1], [0, 4]]))


def test_labels_come_back(tmp_path):
    boxes = np.array([[20.0, 30, 10, 4, 0.5], [60, 30, 20, 8, -1.2]])
    write_labels(tmp_path / "a.txt", boxes, ["ship", "plane"], np.array([False, True]))
    found = read_labels(tmp_path / "a.txt", (100, 100))
    assert found.boxes == pytest.approx(boxes, abs=1e-3) and found.names == ["ship", "plane"]
    assert found.difficult.tolist() == [False, True] and found.left_out == 0
    (tmp_path / "b.txt").write_text("imagesource:GoogleEarth\ngsd:0.2\n\n0 0 4 0 4 4 0 4 ship\n")
    assert read_labels(tmp_path / "b.txt").difficult.tolist() == [False]  # nine fields
    (tmp_path / "c.txt").write_text("")
    assert read_labels(tmp_path / "c.txt").points.shape == (0, 4, 2)


@pytest.mark.parametrize("line", ["0 0 4 0 4 4 0 ship 0", "0 0 4 0 4 4 0 x ship 0", "0 0 4 0 4 4 0 4 ship easy"])
def test_a_line_of_another_form_is_refused(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"0 0 4 0 4 4 0 4 ship 0\n{line}\n")
    with pytest.raises(UsageError, match=r"Line 2 of .*must be x1 y1"):
        read_labels(tmp_path / "a.txt")


def test_detections_come_back(tmp_path):
    rows = np.array([[20.0, 30, 10, 4, 0.5, 0.75, 1]])
    write_detections(tmp_path, {"P1": rows, "P2": rows[:0]}, ("ship", "plane"))
    found = read_detections(tmp_path)
    (image, score, points), = found["plane"]  # fmt: skip
    assert found["ship"] == [] and image == "P1" and score == 0.75
    assert points == pytest.approx(corners(rows[0, :5]), abs=1e-3)
    with pytest.raises(UsageError, match="no file Task1_"):
        read_detections(tmp_path / "none")
    (tmp_path / "Task1_ship.txt").write_text("P1 0.5 1 2 3\n")
    with pytest.raises(UsageError, match="it must be: image score"):
        read_detections(tmp_path)


def test_tiles_cover_an_image():
    assert offsets((3, 100, 100), 128, 20) == [(0, 0)]
    assert offsets((3, 100, 250), 100, 20) == [(0, 0), (80, 0), (150, 0)]
    covered = np.zeros((310, 205), bool)
    for left, top in offsets(covered.shape, 64, 20):
        covered[top : top + 64, left : left + 64] = True
    assert covered.all()


def test_cut_objects_are_difficult_or_gone():
    boxes = np.array([[50.0, 50, 20, 10, 0], [62, 20, 20, 10, 0], [73, 40, 20, 10, 0], [30, 30, 10, 5, 0.4]])
    labels = Labels(corners(boxes), boxes, ["a"] * 4, np.array([False, False, False, True]))
    tile = cut(np.zeros((3, 50, 80), np.uint8), labels, np.arange(4), 0, 0, 64)
    assert tile.classes.tolist() == [0, 1, 3] and tile.difficult.tolist() == [False, True, True]
    assert (tile.pixels[:, 50:] == GREY).all() and (tile.pixels[:, :50] == 0).all()
    moved = cut(np.zeros((3, 50, 80), np.uint8), labels, np.arange(4), 16, 4, 64)
    assert moved.boxes[0].tolist() == [34, 46, 20, 10, 0] and moved.offset == (16, 4)


def folder_of(root, images: int = 4):
    for part in ("images", "labelTxt"):
        (root / part).mkdir(parents=True)
    for number in range(images):
        pixels = np.full((50, 70 + number, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"P{number}.png")
        lines = ["20 20 40 20 40 30 20 30 ship 0\n"] * number
        (root / "labelTxt" / f"P{number}.txt").write_text("".join(lines))
    return root


def test_a_folder_becomes_splits(tmp_path):
    data = Dota(str(folder_of(tmp_path / "d")), str(tmp_path / "cache"), tile=64, overlap=16, classes=["ship"])
    data.prepare_data()
    assert {split: len(set(own.image_number)) for split, own in data.splits.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    assert sorted(name for own in data.images.values() for name in own) == ["P0", "P1", "P2", "P3"]
    counts = np.concatenate([own.counts for own in data.splits.values()])
    assert (data.spec.boxes == 3 and sorted(counts[counts > 0]) == [1, 2, 3]) or (counts == 0).any()
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape[1:] == (3, 64, 64) and batch.boxes.shape[1:] == (3, 5)
    for split in ("train", "val"):
        folder_of(tmp_path / "official" / split)
    data = Dota(str(tmp_path / "official"), str(tmp_path / "cache"), tile=64, overlap=16, classes=["ship"])
    data.prepare_data()
    assert len(data.images["test"]) == 4 and len(data.images["val"]) == 1 and len(data.images["train"]) == 3


def test_what_cannot_be_is_said(tmp_path):
    def data(path, **words):
        return Dota(str(path), str(tmp_path / "cache"), **{"tile": 64, "overlap": 16, "classes": ["ship"], **words})

    with pytest.raises(UsageError, match=r"data\.path is missing"):
        Dota(None, str(tmp_path))
    with pytest.raises(UsageError, match=r"data\.overlap is 64"):
        data(tmp_path, overlap=64)
    with pytest.raises(UsageError, match="has no folder images"):
        data(tmp_path).load_splits()
    with pytest.raises(UsageError, match="has 2 labelled"):
        data(folder_of(tmp_path / "two", 2)).load_splits()
    folder = folder_of(tmp_path / "four")
    with pytest.raises(UsageError, match=r"class 'ship', which is none of plane.*data\.classes"):
        data(folder, classes=["plane"]).load_splits()
    (folder / "images" / "P1.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"P1.png' cannot be read as a picture"):
        data(folder).load_splits()


def test_real_samples(caplog):
    folder = real_data("samples") / "dota" / "labelTxt"
    found = read_labels(folder / "P1888.txt", (712, 557))
    areas = polygon_area(found.points)
    assert len(found.names) == 64 and found.left_out == 0
    assert (found.boxes[:, 2] * found.boxes[:, 3] > 1.05 * areas).sum() == 38
    with caplog.at_level(logging.WARNING):
        crop = read_labels(folder / "P0004__1__0___0.txt", (285, 294))
    assert len(crop.names) == 0 and crop.left_out == 4 and "4 object(s) left out; line 1:" in caplog.text
