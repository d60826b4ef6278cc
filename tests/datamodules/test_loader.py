"""The loader: every item once, an order that is a function of (seed, epoch), a place that can be kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.loader import ArrayLoader, BatchLoader

ITEMS = 23


def loader(**options) -> BatchLoader:
    images = np.arange(ITEMS, dtype=np.uint8).reshape(ITEMS, 1, 1, 1)
    return BatchLoader(images, np.arange(ITEMS), batch_size=5, **options)


def order(batches: BatchLoader) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def test_without_a_seed_the_given_order():
    assert order(loader()) == list(range(ITEMS))
    assert len(loader()) == 5


def test_images_and_labels_stay_together():
    for images, labels in loader(seed=1):
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.flatten().tolist() == labels.tolist()


def test_the_order_is_a_function_of_seed_and_epoch():
    batches = loader(seed=1)
    first = order(batches)
    assert sorted(first) == list(range(ITEMS)) and first != sorted(first)
    assert order(batches) == first
    batches.sampler.set_epoch(1)
    second = order(batches)
    assert sorted(second) == list(range(ITEMS)) and second != first
    fresh = loader(seed=1)
    fresh.sampler.set_epoch(1)
    assert order(fresh) == second
    assert order(loader(seed=2)) != first


@pytest.mark.parametrize("done", [1, 3, 4])
def test_a_restored_place_gives_the_rest_of_the_epoch_then_whole_ones(done):
    batches = loader(seed=3)
    whole, half = order(batches), iter(batches)
    for _ in range(done):
        next(half)
    restored = loader(seed=3)
    restored.load_state_dict(batches.state_dict())
    assert order(restored) == whole[done * 5 :]
    assert order(restored) == whole


def test_a_place_at_the_end_of_an_epoch_is_the_next_ones_beginning():
    batches = loader(seed=3)
    list(batches)
    assert batches.state_dict() == {"batches_done": 0}


def test_an_iteration_left_early_does_not_move_the_next():
    batches = loader()
    next(iter(batches))
    assert order(batches) == list(range(ITEMS))


def test_processes_share_the_items_equally_in_training():
    shares = [order(loader(seed=1, rank=rank, world=2, even=True)) for rank in range(2)]
    assert [len(share) for share in shares] == [11, 11] and not set(shares[0]) & set(shares[1])
    assert len(loader(seed=1, rank=0, world=2, even=True)) == 3


def test_processes_share_all_items_in_evaluation():
    shares = [order(loader(rank=rank, world=2)) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(ITEMS))


def test_any_arrays_that_are_indexed_alike():
    """Augmented together, collated with their numbers and the epoch, in the order that pairs have."""

    def augment(arrays, rng, rows, epoch):
        assert (arrays[0] == rows).all() and rng.random() < 1
        return (arrays[0] + 100, *arrays[1:])

    def collate(arrays, rows, epoch):
        return arrays, rows, epoch

    arrays = (np.arange(ITEMS), np.arange(2 * ITEMS).reshape(ITEMS, 2), np.arange(ITEMS) % 3 == 0)
    batches = ArrayLoader(arrays, batch_size=5, seed=1, augment=augment, collate=collate)
    batches.sampler.set_epoch(2)
    seen = []
    for (first, second, third), rows, epoch in batches:
        assert epoch == 2 and (first == rows + 100).all()
        assert (second == arrays[1][rows]).all() and (third == arrays[2][rows]).all()
        seen += rows.tolist()
    pairs = loader(seed=1)
    pairs.sampler.set_epoch(2)
    assert seen == order(pairs) and arrays[0].max() == ITEMS - 1
