"""Images that lie on the device that trains: the same batches, to the bit; the CPU stands in for a GPU."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.images.mnist import MNIST
from datamodules.images.shared.augment import FLIPS, FlipAndCrop
from datamodules.images.shared.on_device import DeviceLoader, has_room, reflected
from datamodules.loader import BatchLoader
from running.build import place_data

CPU = torch.device("cpu")
ITEMS = 23


def both(
    moves: FlipAndCrop | None, shape: tuple[int, ...] = (3, 6, 9), device: torch.device = CPU, **dealt
) -> tuple[BatchLoader, DeviceLoader]:
    rng = np.random.default_rng(1)
    split = rng.integers(0, 256, (ITEMS, *shape), np.uint8), rng.integers(0, 5, ITEMS).astype(np.uint8)
    dealt = {"batch_size": 5, "seed": 7} | dealt
    return BatchLoader(*split, **dealt, augment=moves), DeviceLoader(*split, **dealt, device=device, moves=moves)


def assert_same(usual: BatchLoader, there: DeviceLoader) -> None:
    pairs = list(zip(usual, there, strict=True))
    assert len(pairs) == len(usual)
    for usual_batch, batch in pairs:
        for expected, found in zip(usual_batch, batch, strict=True):
            assert found.device.type == there.device.type and found.is_contiguous()
            assert found.dtype == expected.dtype and torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(("flip", "padding", "shape"), list(product(FLIPS, (0, 1, 2, 5), ((3, 6, 9), (1, 7, 6)))))
def test_the_batches_are_the_usual_ones(flip, padding, shape):
    usual, there = both(FlipAndCrop(flip, padding, seed=3), shape)
    for epoch in range(3):
        for loader in (usual, there):
            loader.sampler.set_epoch(epoch)
        assert_same(usual, there)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("flip", FLIPS)
def test_the_batches_are_the_usual_ones_on_a_gpu(flip):
    assert_same(*both(FlipAndCrop(flip, 2, seed=3), device=torch.device("cuda", 0)))


@pytest.mark.parametrize("dealt", [{"world": 2, "rank": 1, "even": True}, {"weights": np.full(ITEMS, 1 / ITEMS)}])
def test_processes_and_weights_too_and_images_that_do_not_move(dealt):
    assert_same(*both(None, **dealt))
    assert_same(*both(FlipAndCrop("random", 2, 3), **dealt))


def test_a_restored_place_gives_the_rest_of_the_epoch():
    usual, there = both(FlipAndCrop("random", 1, 3))
    left = iter(there)
    next(left), next(left)
    state = there.state_dict()
    assert state == {"batches_done": 2}
    for loader in both(FlipAndCrop("random", 1, 3)):
        loader.load_state_dict(state)
        rest = [labels.tolist() for _, labels in loader]
        assert rest == [labels.tolist() for _, labels in usual][2:]


def test_neither_what_lies_there_nor_the_arrays_change():
    _, there = both(FlipAndCrop("alternating", 2, 3))
    before = there.arrays[0].copy()
    list(there)
    assert (there.held[0].numpy() == before).all() and (there.arrays[0] == before).all()


def test_places_beyond_an_edge_are_those_that_numpy_reflects():
    for size, padding in ((2, 1), (6, 5), (7, 3)):
        expected = np.pad(np.arange(size), padding, mode="reflect")
        assert reflected(torch.arange(-padding, size + padding), size).tolist() == expected.tolist()


def test_a_padding_wider_than_the_image_is_the_same_sentence():
    with pytest.raises(UsageError, match="images of 6×9 allow at most 5"):
        list(both(FlipAndCrop("none", 6, 0))[1])


def test_room_is_a_twentieth_of_a_gpu_s_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2000, 10**9))
    gpu = torch.device("cuda", 0)
    assert has_room(gpu, 100) and not has_room(gpu, 101) and not has_room(CPU, 1)


@pytest.mark.parametrize("data", [MNIST("nowhere", "nowhere"), object()])
def test_other_data_is_refused_where_it_is_asked_for(data):
    config = OmegaConf.create({"on_device": True, "choices": {"data": "mnist"}})
    with pytest.raises(UsageError, match="on_device=true is for images that are flipped and cropped at most"):
        place_data(data, config)
    config.on_device = "auto"
    place_data(data, config)
