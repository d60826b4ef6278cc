"""The embedded digits, and what image datasets share."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.errors import UsageError
from datamodules.images.digits import Digits
from datamodules.images.shared.image import Split, cut_validation
from datamodules.spec import ImageSpec, TextSpec, spec_from_dict, spec_to_dict


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def test_the_splits_are_fixed_disjoint_and_complete():
    first, second = Digits(seed=0), Digits(seed=1)
    first.prepare_data()
    second.prepare_data()
    assert {name: len(split.images) for name, split in first.splits.items()} == {"train": 1293, "val": 144, "test": 360}
    for name, split in first.splits.items():
        assert np.array_equal(split.images, second.splits[name].images), "the seed of a run must not move the splits"
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == first.spec.shape
        assert split.images.max() == first.spec.levels - 1
        assert set(split.labels) == set(range(first.spec.classes))
    assert not rows(first.splits["train"]) & rows(first.splits["test"])
    assert not rows(first.splits["train"]) & rows(first.splits["val"])


def test_only_training_is_shuffled():
    data = Digits()
    data.prepare_data()
    assert np.array_equal(next(iter(data.test_dataloader()))[1], data.splits["test"].labels[:128])
    assert not np.array_equal(next(iter(data.train_dataloader()))[1], data.splits["train"].labels[:64])


@pytest.mark.parametrize("items", [0, 10, 11])
def test_an_impossible_validation_split_is_refused(items):
    with pytest.raises(UsageError, match=r"data\.val_items"):
        cut_validation(Split(np.zeros((10, 1, 2, 2), np.uint8), np.zeros(10)), items, 0)


@pytest.mark.parametrize("size", [0, -3, 2.5, "many"])
def test_an_impossible_batch_size_is_refused(size):
    with pytest.raises(UsageError, match=r"data\.batch_size"):
        Digits(batch_size=size)


@pytest.mark.parametrize("spec", [ImageSpec(3, 4, 5, 256, 10), TextSpec("abc")])
def test_a_spec_survives_plain_containers(spec):
    assert spec_from_dict(spec_to_dict(spec)) == spec
