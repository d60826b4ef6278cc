"""Pairs of domains: the blend, the splits, the loader of both orders, and what cannot be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from datamodules.domains.blending import blend, blended, in_colour
from datamodules.domains.digits_m import DigitsM
from datamodules.domains.mnist_m import MNISTM, divided, find_photographs, read_photographs
from datamodules.domains.pair import Pair
from datamodules.domains.pairs import PairLoader
from datamodules.errors import UsageError
from datamodules.images.mnist import read_idx
from datamodules.images.shared.image import Split
from tests.conftest import real_data


@pytest.fixture(scope="module")
def digits_m(tmp_path_factory):
    data = DigitsM(cache=str(tmp_path_factory.mktemp("cache")), batch_size=50)
    data.prepare_data()
    return data


# The blend


def test_a_blend_is_the_difference_in_whole_numbers():
    rng = np.random.default_rng(0)
    patch, digit = rng.integers(0, 256, (5, 4, 3), np.uint8), rng.integers(0, 256, (5, 4), np.uint8)
    digit[0], digit[1] = 0, 255
    found = blend(patch, digit)
    for row, column, channel in np.ndindex(5, 4, 3):
        assert found[row, column, channel] == abs(int(patch[row, column, channel]) - int(digit[row, column]))
    assert (found[0] == patch[0]).all() and (found[1] == 255 - patch[1]).all()


def test_an_item_is_a_function_of_seed_split_and_number_alone():
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, size, np.uint8) for size in ((40, 50, 3), (33, 28, 3))]
    digits = rng.integers(0, 256, (9, 1, 28, 28), np.uint8)
    every = blended(digits, range(9), photographs, seed=3, split=1)
    np.testing.assert_array_equal(blended(digits[[7, 2]], [7, 2], photographs, 3, 1), every[[7, 2]])
    for other in ({"seed": 4, "split": 1}, {"seed": 3, "split": 2}):
        assert (blended(digits, range(9), photographs, **other) != every).any((1, 2, 3)).all()


def test_grey_in_colour_has_equal_channels_and_takes_no_memory():
    grey = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    colour = in_colour(grey)
    assert colour.shape == (2, 3, 2, 2) and (colour == grey).all() and np.shares_memory(colour, grey)


# The embedded pair


def test_the_embedded_pairs_splits(digits_m):
    sizes = {name: len(split.images) for name, split in digits_m.splits.items()}
    assert sizes == {
        f"{d}_{k}": n for d in ("source", "target") for k, n in (("train", 640), ("val", 60), ("test", 397))
    }
    for split in digits_m.splits.values():
        assert split.images.shape[1:] == digits_m.spec.shape and split.images.dtype == np.uint8
    grey = [digits_m.splits[name].images[:, 0] for name in ("source_train", "source_val", "source_test")]
    assert (np.bincount(digits_m.splits["source_train"].labels) == 64).all()
    assert all((image[:2] == 0).all() and image.max() > 200 for image in grey[0][:20])
    together = DigitsM(cache=str(digits_m.cache), overlap=True)
    together.prepare_data()
    assert len(together.splits["source_train"].images) == len(together.splits["target_train"].images) == 1280
    np.testing.assert_array_equal(together.splits["source_train"].labels, together.splits["target_train"].labels)
    assert together.fingerprint != digits_m.fingerprint and "both domains" in together.note


def test_the_embedded_pair_is_always_the_same(digits_m):
    found = hashlib.sha256(np.ascontiguousarray(digits_m.splits["target_train"].images[:100])).hexdigest()
    assert found == "7c1c52cc646b005c07d2d7fd3983f9dd2e93f51bd78c7db3e524fb1b38313271"


def test_backgrounds_share_no_pixel_and_are_light_and_dark_in_every_split(digits_m, monkeypatch):
    given = []
    monkeypatch.setattr(
        "datamodules.domains.digits_m.blended", lambda images, numbers, photographs, *_: given.append(photographs)
    )
    digits_m._made(np.zeros((1, 1, 28, 28), np.uint8))
    assert [len(strips) for strips in given] == [12, 4, 8] and all(s.shape[1] >= 28 for part in given for s in part)
    strips = [strip for part in given for strip in part]
    assert not any(np.shares_memory(one, other) for n, one in enumerate(strips) for other in strips[:n])
    assert sum(strip.shape[1] for strip in strips) == 2 * 640
    for kind in ("train", "val", "test"):
        light = (digits_m.splits[f"target_{kind}"].images[:, :, :2].mean((1, 2, 3)) > 128).mean()
        assert 0.2 < light < 0.5, kind


# MNIST-M


def test_mnist_m_is_always_the_same():
    folder = real_data("bsds500").parent
    digits = read_idx(real_data("mnist") / "raw" / "train-images-idx3-ubyte.gz", 3)[30_000:30_100, None]
    photographs = divided(read_photographs(find_photographs(folder)))
    assert [len(part) for part in photographs.values()] == [160, 20, 20]
    shapes = {photograph.shape for part in photographs.values() for photograph in part}
    assert shapes == {(321, 481, 3), (481, 321, 3)}, "upright"
    made = blended(digits, range(30_000, 30_100), photographs["train"], seed=0, split=0)
    found = hashlib.sha256(made.tobytes()).hexdigest()
    assert found == "2f91e8fe603f0159e640654ff28f4eb1166a44ca4b0dd48d9158b0b89d1a5be9"


@pytest.mark.slow
def test_mnist_ms_splits(tmp_path):
    data = MNISTM(str(real_data("bsds500").parent), str(tmp_path))
    data.prepare_data()
    sizes = {name: len(split.images) for name, split in data.splits.items()}
    assert sizes == {
        "source_train": 30_000, "target_train": 25_000, "source_val": 2500, "target_val": 2500,
        "source_test": 10_000, "target_test": 10_000,
    }  # fmt: skip
    found = hashlib.sha256(data.splits["target_train"].images[:100].tobytes()).hexdigest()
    assert found == "2f91e8fe603f0159e640654ff28f4eb1166a44ca4b0dd48d9158b0b89d1a5be9"
    np.testing.assert_array_equal(data.splits["source_test"].labels, data.splits["target_test"].labels)


def test_missing_photographs_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.domains.mnist_m.idx_source", lambda path: object())
    with pytest.raises(UsageError, match=r"BSDS500 were not found .* take data=digits_m, which needs no download"):
        MNISTM(str(tmp_path), str(tmp_path)).prepare_data()
    (tmp_path / "bsds500").mkdir()
    (tmp_path / "bsds500" / "train_images-0.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match=r"train_images-0.parquet is damaged or not BSDS500"):
        read_photographs(find_photographs(tmp_path))
    with pytest.raises(UsageError, match="There are 9 photographs of BSDS500, too few"):
        divided([np.zeros((30, 30, 3), np.uint8)] * 9)


# The loader


def loader(source: int = 10, target: int = 7, **how) -> PairLoader:
    images = np.arange(source, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(source) % 3
    return PairLoader(Split(images, labels), np.arange(target, dtype=np.uint8)[:, None, None, None], 4, seed=1, **how)


def drawn(made: PairLoader, epoch: int) -> tuple[list[int], list[int]]:
    made.sampler.set_epoch(epoch)
    batches = list(made)
    return tuple([int(x) for batch in batches for x in getattr(batch, name).flatten()] for name in ("source", "target"))


def test_an_epoch_goes_through_the_longer_domain_and_the_shorter_wraps_in_new_orders():
    made, target = loader(), []
    for epoch in range(7):
        source, own = drawn(made, epoch)
        assert sorted(source) == list(range(10)) and len(own) == 10
        target += own
    passes = np.array(target).reshape(10, 7)
    assert (np.sort(passes, 1) == np.arange(7)).all() and len({tuple(row) for row in passes.tolist()}) == 10
    assert len(made) == 3 and [len(batch.source) for batch in made] == [4, 4, 2]
    assert drawn(made, 2) == drawn(loader(), 2) != drawn(made, 3), "an order is a function of the epoch"
    source, target = drawn(loader(source=6, target=9), 5)
    assert sorted(target) == list(range(9)) and len(source) == 9


def test_a_batch_holds_no_target_label():
    batch = next(iter(loader()))
    assert batch._fields == ("source", "labels", "target", "rows")
    assert (batch.source.flatten() % 3 == batch.labels).all() and (batch.target.flatten() == batch.rows).all()


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_both_orders_go_on_from_the_middle_of_an_epoch(stopped):
    whole, cut = loader(), loader()
    whole.sampler.set_epoch(4)
    cut.sampler.set_epoch(4)
    rest = list(whole)[stopped:]
    running = iter(cut)
    for _ in range(stopped):
        next(running)
    state, again = cut.state_dict(), loader()
    again.sampler.set_epoch(4)
    again.load_state_dict(state)
    found = list(again) if state["batches_done"] else []
    for one, other in zip(rest, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_processes_share_an_epoch_between_them():
    alone, parts = drawn(loader(), 3), [drawn(loader(rank=rank, world=2), 3) for rank in range(2)]
    for number in range(2):
        assert sorted(parts[0][number] + parts[1][number]) == sorted(alone[number])


def test_target_labels_are_refused_before_the_test(digits_m):
    assert len(digits_m.target_labels("test")) == 397
    for kind in ("train", "val"):
        with pytest.raises(UsageError, match=f"The target's {kind} labels are asked for in fit"):
            digits_m.target_labels(kind)
        assert len(digits_m.target_labels(kind, peeking=True)) in (640, 60)


def test_an_empty_domain_is_a_sentence(digits_m, monkeypatch):
    empty = {name: Split(split.images[:0], split.labels[:0]) for name, split in digits_m.splits.items()}
    made = DigitsM(cache=str(digits_m.cache))
    monkeypatch.setattr(made, "load_splits", lambda: digits_m.splits | {"target_val": empty["target_val"]})
    with pytest.raises(UsageError, match="There are no images in target val: both domains need some"):
        made.prepare_data()


# Any two sets


def test_any_two_sets_that_fit(tmp_path):
    data = Pair("digits", "digits", "nowhere", str(tmp_path), target_options={"val_items": 100})
    data.prepare_data()
    assert len(data.splits["source_val"].images) == 144 and len(data.splits["target_val"].images) == 100
    assert data.domains == ("digits", "digits") and data.spec.classes == 10


@pytest.mark.parametrize(
    ("source", "target", "options", "said"),
    [
        ("digits", "digit", {}, r"data.target is 'digit' \(did you mean 'digits'\?\)"),
        ("digits", "pydocs", {}, "data.target=pydocs is no set of single images"),
        ("digits", "digits_m", {}, "data.target=digits_m is no set of single images"),
        ("digits", "digits", {"source_options": {"binarize": "none"}}, "data=digits has no such option"),
        ("digits", "photos", {}, "must both be images with classes|do not fit: digits has images of"),
        ("digits", "digit_shapes", {}, None),
    ],
)
def test_what_does_not_fit_is_said(source, target, options, said, tmp_path):
    def make() -> None:
        Pair(source, target, "nowhere", str(tmp_path), **options).prepare_data()

    if said is None:
        make()
        return
    with pytest.raises(UsageError, match=said):
        make()
