"""Image, mask and boxes are moved alike, and what cannot be seen any more is no longer asked for."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.scenes.augment import SceneAugment, mirrored, turned
from datamodules.scenes.batches import SceneSplit
from datamodules.scenes.digit_scenes import AnyDigits
from datamodules.scenes.pixels import paint_and_tell
from datamodules.scenes.records import make_scenes
from datamodules.scenes.rectangles import canonical, corners, share_inside
from datamodules.scenes.settings import scene_settings
from tests.datamodules.scenes.test_digit_scenes import mask_of
from tests.datamodules.scenes.test_scenes import area_in_common

SIDE = 96
ALL = {"mirror": True, "quarter_turns": True, "scale": (0.6, 1.6), "crop": (80, 64)}


def batch_of(items: int, ignore: int = 0) -> SceneSplit:
    settings = scene_settings(SIDE, (1, 6), (0.16, 0.3), 75, 1, 2, 0, 0, most_objects=12)
    scenes = make_scenes(settings, AnyDigits(), "train", 0, items)
    images, instances = paint_and_tell(scenes, SIDE)
    there = scenes.there()
    boxes = canonical(scenes.rectangles() * np.array([SIDE] * 4 + [1]))
    return SceneSplit(
        images,
        instances,
        np.where(there[..., None], boxes, 0).astype(np.float32),
        np.where(there, scenes.digit, -1),
        np.zeros(there.shape, bool),
        scenes.count,
        corners(boxes).reshape(items, -1, 8).astype(np.float32) * there[..., None],
    )


def same(one: SceneSplit, other: SceneSplit) -> None:
    assert one.held.keys() == other.held.keys()
    for name, array in one.held.items():
        np.testing.assert_array_equal(array, other.held[name], name)


def test_dots_at_the_corners_go_where_the_boxes_go():
    """A bright dot of 3×3 pixels around one corner of each box, with nothing else in the image."""
    batch, worst, found = batch_of(40), 0.0, 0
    augment = SceneAugment(256, **{**ALL, "scale": (0.8, 1.6)})
    rng = np.random.default_rng(1)
    for row in range(40):
        own = batch.part(slice(row, row + 1))
        for corner in range(4):
            x, y = corners(own.boxes[0, 0])[corner]
            images = np.zeros_like(own.images)
            column, line = round(x - 0.5), round(y - 0.5)
            images[0, :, max(line - 1, 0) : line + 2, max(column - 1, 0) : column + 2] = 255
            moves = augment.draw(images.shape, rng)
            after = augment.apply(own._replace(images=images), moves)
            places = np.argwhere(after.images[0, 0] > 100)
            shares = after.images[0, 0].astype(float)
            if not after.counts[0] or len(places) < 4:
                continue
            centre = np.array([(np.indices(shares.shape)[axis] * shares).sum() / shares.sum() for axis in (1, 0)]) + 0.5
            inside = (centre > 4).all() and centre[0] < 60 and centre[1] < 76
            if not inside:
                continue
            rounding = np.hypot(column + 0.5 - x, line + 0.5 - y) * moves.factor[0]
            distances = np.hypot(*(corners(after.boxes[0, : after.counts[0]]).reshape(-1, 2) - centre).T)
            worst, found = max(worst, distances.min() - rounding), found + 1
    assert found > 40 and worst < 0.75


def test_mask_areas_grow_by_the_factors_square():
    batch, ratios = batch_of(300), []
    augment = SceneAugment(256, scale=(0.7, 1.6), crop=(SIDE, SIDE))
    moves = augment.draw(batch.images.shape, np.random.default_rng(0))
    after = augment.apply(batch, moves)
    for row in range(len(batch.images)):
        for box, polygon in zip(after.boxes[row, : after.counts[row]], after.polygons[row], strict=False):
            if share_inside(box, SIDE, SIDE) < 1 - 1e-9:
                continue
            found = after.masks[row][mask_of(box, SIDE)]
            own = np.bincount(found[found > 0]).argmax()
            before = (batch.masks[row] == own).sum() * moves.factor[row] ** 2
            ratios.append((after.masks[row] == own).sum() / before)
            np.testing.assert_allclose(
                sorted(map(tuple, corners(box))), sorted(map(tuple, polygon.reshape(4, 2))), atol=1e-2
            )
    assert len(ratios) >= 300 and abs(np.mean(ratios) - 1) < 0.01 and max(abs(np.array(ratios) - 1)) < 0.2


def test_twice_mirrored_and_four_times_turned_is_nothing():
    batch = batch_of(12)
    which, quarter = np.arange(12) % 2 == 0, np.arange(12) % 4
    for after in (
        mirrored(mirrored(batch, which), which),
        turned(turned(turned(turned(batch, quarter), quarter), quarter), quarter),
    ):
        np.testing.assert_array_equal(after.images, batch.images)
        np.testing.assert_array_equal(after.masks, batch.masks)
        np.testing.assert_allclose(after.boxes[..., :4], batch.boxes[..., :4], atol=1e-4)
        turn = (after.boxes[..., 4] - batch.boxes[..., 4] + np.pi / 2) % np.pi - np.pi / 2
        np.testing.assert_allclose(turn, 0, atol=1e-6)
    once = mirrored(batch, which)
    assert not np.array_equal(once.images[0], batch.images[0]) and np.array_equal(once.images[1], batch.images[1])


def test_nothing_is_invented_and_nothing_written_to():
    batch = batch_of(24)
    batch.counts[0] = 0
    batch = batch._replace(boxes=np.where((np.arange(6) < batch.counts[:, None])[..., None], batch.boxes, 0))
    copies = SceneSplit(**{name: array.copy() for name, array in batch.held.items()})
    for array in batch.held.values():
        array.flags.writeable = False
    augment = SceneAugment(256, ignore=11, **ALL, brightness=0.2, contrast=0.2, colour=0.1)
    after = augment(batch, np.random.default_rng(3), np.arange(24), 0)
    same(batch, copies)
    assert after.images.shape == (24, 3, 80, 64) and after.masks.shape == (24, 80, 64)
    for row in range(24):
        assert set(np.unique(after.masks[row])) <= {*np.unique(batch.masks[row]), 11}
    assert (after.counts <= batch.counts).all() and after.counts[0] == 0
    assert any(after.difficult.ravel()) and (after.counts == batch.counts).any()
    beyond = np.arange(6) >= after.counts[:, None]
    assert (after.boxes[beyond] == 0).all() and (after.classes[beyond] == -1).all()
    again = augment(batch, np.random.default_rng(3), np.arange(24), 0)
    same(after, again)


def test_an_image_is_moved_alike_alone_and_among_others():
    batch, augment = batch_of(8), SceneAugment(256, **ALL, brightness=0.2, contrast=0.2, colour=0.1)
    moves = augment.draw(batch.images.shape, np.random.default_rng(0))
    whole = augment.apply(batch, moves)
    for row in range(8):
        one = slice(row, row + 1)
        same(augment.apply(batch.part(one), moves.part(one)), whole.part(one))


def test_a_mask_painted_into_the_image_stays_on_it():
    batch = batch_of(30)
    painted = batch._replace(images=np.repeat((batch.masks > 0)[:, None] * np.uint8(255), 3, 1))
    after = SceneAugment(256, **ALL)(painted, np.random.default_rng(0), np.arange(30), 0)
    assert ((after.images[:, 0] > 127) != (after.masks > 0)).mean() < 0.02


def test_the_share_inside_is_that_of_the_clipped_polygon():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([-10, -10, 2, 2, -4], [60, 50, 40, 40, 4], (400, 5))
    boxes[:40, 4] = 0
    window = np.array([25, 20, 50, 40, 0.0])
    expected = [area_in_common(box, window) / (box[2] * box[3]) for box in boxes]
    np.testing.assert_allclose(share_inside(boxes, 50, 40), expected, atol=1e-9)


@pytest.mark.parametrize("factor", [1, 2])
def test_without_a_choice_nothing_is_done(factor):
    batch = batch_of(2 * factor)
    same(SceneAugment(256)(batch, np.random.default_rng(0), np.arange(2), 0), batch)
