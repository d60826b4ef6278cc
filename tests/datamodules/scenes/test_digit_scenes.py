"""digit_scenes: masks and boxes sit on the digits, whatever else is drawn; what is impossible is said."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.scenes.batches import SceneBatch
from datamodules.scenes.digit_scenes import AnyDigits, DigitScenes
from datamodules.scenes.pixels import paint_and_tell
from datamodules.scenes.records import make_scenes
from datamodules.scenes.rectangles import canonical, corners
from datamodules.scenes.settings import scene_settings
from datamodules.spec import (
    ImageSpec,
    SceneSpec,
    require_boxes,
    require_masks,
    require_scenes,
    spec_from_dict,
    spec_to_dict,
)
from tests.datamodules.scenes.test_scenes import check_room

SETTINGS = scene_settings(64, (1, 6), (0.16, 0.36), 75, 1, 2, 0, 0, most_objects=12)


def data(tmp_path, **options) -> DigitScenes:
    few = {"side": 64, "train_items": 12, "val_items": 3, "test_items": 3, "batch_size": 5}
    made = DigitScenes(str(tmp_path), **{**few, **options})
    made.prepare_data()
    return made


def test_digits_have_room_and_their_numbers_are_as_likely():
    made = make_scenes(SETTINGS, AnyDigits(), "train", 0, 600)
    check_room(made.part(slice(0, 100)), SETTINGS)
    counts = np.bincount(made.count, minlength=7)[1:]
    assert (np.abs(counts - 100) < 3 * (600 / 6 * 5 / 6) ** 0.5).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_class_occurs(split):
    made = make_scenes(SETTINGS, AnyDigits(), split, 0, 500)
    assert set(made.digit[made.there()]) == set(range(10))


def test_pixels_of_a_digit_lie_in_its_box_and_in_no_other():
    made = make_scenes(SETTINGS, AnyDigits(), "test", 0, 60)
    side = 128
    _, instances = paint_and_tell(made, side)
    boxes = canonical(made.rectangles() * np.array([side] * 4 + [1]))
    distances = []
    for row, count in enumerate(made.count):
        for place in range(count):
            rows, columns = np.nonzero(instances[row] == place + 1)
            assert len(rows), "no digit without a pixel"
            for other in range(count):
                x, y, width, height, angle = boxes[row, other]
                dx, dy = columns + 0.5 - x, rows + 0.5 - y
                along = np.abs(dx * np.cos(angle) + dy * np.sin(angle)) - width / 2
                across = np.abs(dy * np.cos(angle) - dx * np.sin(angle)) - height / 2
                outside = np.maximum(along, across)
                if other == place:
                    assert (outside <= 1e-4).all()
                    distances.append(-max(along.max(), across.max()))
                else:
                    assert (outside > 0).all()
    assert np.median(distances) < 0.5 and max(distances) < 2.5, "boxes are tight"


def test_twice_the_side_doubles_boxes(tmp_path):
    small, large = data(tmp_path, train_items=4), data(tmp_path, train_items=4, side=128)
    np.testing.assert_array_equal(large.splits["train"].boxes[..., :4], 2 * small.splits["train"].boxes[..., :4])
    np.testing.assert_array_equal(large.splits["train"].boxes[..., 4], small.splits["train"].boxes[..., 4])


def test_scenes_are_those_of_every_other_machine_and_a_prefix_of_more(tmp_path):
    made = make_scenes(SETTINGS, AnyDigits(), "val", 0, 20)
    numbers = [np.round(values, 6).astype(np.float64) + 0.0 for values in made]
    assert hashlib.sha256(b"".join(values.tobytes() for values in numbers)).hexdigest()[:16] == "46fa9a5742a57858"
    fewer, more = data(tmp_path, train_items=5), data(tmp_path)
    for name, array in fewer.splits["train"].held.items():
        np.testing.assert_array_equal(array, more.splits["train"].held[name][:5], name)


def test_splits_and_batches(tmp_path):
    whole = data(tmp_path)
    spec, split = whole.spec, whole.splits["train"]
    assert (spec.classes, spec.boxes, spec.ignore, spec.background) == (11, 6, -1, True)
    assert spec_from_dict(spec_to_dict(spec)) == spec
    there = np.arange(6) < split.counts[:, None]
    assert (split.classes[~there] == -1).all() and (split.boxes[~there] == 0).all()
    assert (split.boxes[..., 2] >= split.boxes[..., 3]).all() and (np.abs(split.boxes[..., 4]) <= np.pi / 2).all()
    for mask, classes in zip(split.masks, split.classes, strict=True):
        assert set(np.unique(mask)) == {0, *classes[classes >= 0]}
    for row, count in enumerate(split.counts):  # the class under a box is the box's
        inside = [split.masks[row][mask_of(box, 64)] for box in split.boxes[row, :count]]
        assert [np.bincount(own[own > 0]).argmax() for own in inside] == split.classes[row, :count].tolist()
    batches = list(whole.train_dataloader())
    assert [len(batch.images) for batch in batches] == [5, 5, 2] and isinstance(batches[0], SceneBatch)
    assert batches[0].masks.dtype == torch.int64 and batches[0].polygons is None
    boxes_only = data(tmp_path, background=False)
    assert boxes_only.splits["train"].masks is None and boxes_only.spec.classes == 10
    np.testing.assert_array_equal(boxes_only.splits["train"].classes[there] + 1, split.classes[there])
    merged = data(tmp_path, merge_69=True, max_angle=180)
    assert merged.spec.classes == 10 and "6 or 9" in merged.spec.names


def mask_of(box: np.ndarray, side: int) -> np.ndarray:
    """The pixels whose centres lie in a box."""
    x, y, width, height, angle = box
    dx, dy = np.meshgrid(np.arange(side) + 0.5 - x, np.arange(side) + 0.5 - y)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return (np.abs(along) <= width / 2) & (np.abs(across) <= height / 2)


def test_canonical_rectangles_are_the_same_ones():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([0, 0, 1, 1, -9], [50, 50, 20, 20, 9], (500, 5))
    boxes[:4, 4] = [-1e-17, np.pi / 2, -np.pi / 2, np.pi]
    found = canonical(boxes)
    assert (found[:, 2] >= found[:, 3]).all() and (found[:, 4] >= -np.pi / 2).all() and (found[:, 4] < np.pi / 2).all()
    for one, other in zip(corners(boxes), corners(found), strict=True):
        apart = np.abs(one[:, None] - other[None]).max(-1)
        assert apart.min(1).max() < 1e-9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"side": 40}, "data.side is 40, but it must be a multiple of 16 from 32 to 1024"),
        ({"side": 16}, "data.side is 16, but"),
        ({"glyph_size": [0.4, 0.2]}, "data.glyph_size is"),
        ({"glyph_size": [0.4, 0.7]}, "data.glyph_size is"),
        ({"objects": [3, 1]}, "data.objects is"),
        ({"max_angle": 181}, "data.max_angle is 181, but it must be a number of degrees from 0 to 180"),
        ({"max_angle": 90}, "data.max_angle is 90, but beyond 85 degrees a 6 looks like a 9.*data.merge_69=true"),
        ({"stretch": 0.5}, "data.stretch is 0.5, but it must be a number, 1 or more"),
        ({"objects": [9, 9], "glyph_size": [0.5, 0.5]}, "has no room for 9 digits.*glyph_size.*objects.*gap"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        data(tmp_path, **options)


def test_networks_say_which_data_they_want():
    boxes = SceneSpec(3, 32, 32, 256, 1, ("ship",), boxes=4)
    masks = SceneSpec(3, 32, 32, 256, 1, ("road",))
    for require, wrong in ((require_masks, boxes), (require_boxes, masks), (require_scenes, ImageSpec(1, 8, 8, 17))):
        with pytest.raises(UsageError, match=r"Net (learns|models).*data=digit_scenes"):
            require(wrong, "Net")
    assert require_masks(masks, "Net") is masks and require_boxes(boxes, "Net") is boxes
