"""Classes that are never trained on: which, and where their images are."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.errors import UsageError
from datamodules.images.shared.held_out import held_out_classes, hold_out
from datamodules.images.shared.image import Split


@pytest.mark.parametrize(("number", "classes"), [(0, 10), (2, 10), (8, 10), (20, 100), (1, 3), (98, 100)])
def test_so_many_different_classes_spread_over_all(number, classes):
    found = held_out_classes(number, classes)
    assert len(set(found)) == number and all(0 <= each < classes for each in found)
    if (number, classes) == (20, 100):
        assert found == list(range(2, 100, 5))


@pytest.mark.parametrize("number", [-1, 9, 10, 2.5, True, "two"])
def test_two_classes_must_be_left(number):
    with pytest.raises(UsageError, match="must be from 0 to 8: of 10 classes at least two must be left"):
        held_out_classes(number, 10)


def test_their_test_images_are_a_split_of_their_own():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    split = Split(images, np.arange(12) % 4)
    found = hold_out({"train": split, "val": split, "test": split}, [1])
    for name in ("train", "val", "test"):
        assert set(found[name].labels) == {0, 2, 3} and (found[name].images[:, 0, 0, 0] % 4 == found[name].labels).all()
    assert (found["unseen"].labels == 1).all() and found["unseen"].images[:, 0, 0, 0].tolist() == [1, 5, 9]
    assert hold_out({"train": split}, []) == {"train": split}
