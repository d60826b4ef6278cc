"""MNIST from every form it comes in, and its draws: made-up files of a few images, and the real ones where they are."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.errors import UsageError
from datamodules.images import mnist
from datamodules.images.mnist import DRAWN_ITEMS, FOLDERS, MNIST, draw
from datamodules.images.shared.image import Split
from tests.conftest import real_data

pytestmark = pytest.mark.usefixtures("no_hub")
ITEMS = {"train": 40, "test": 12}
FEW_DRAWN = {"train": 9, "valid": 4, "test": 5}


@pytest.fixture
def grey() -> dict[str, Split]:
    """Random images in the two published splits."""
    rng = np.random.default_rng(1)
    return {
        split: Split(rng.integers(0, 256, (items, 1, 28, 28), np.uint8), np.arange(items) % 10)
        for split, items in ITEMS.items()
    }


@pytest.fixture
def drawn(monkeypatch) -> dict[str, np.ndarray]:
    """Random images of 0 and 1 in the three splits of the static draw, which is taken to be this small."""
    monkeypatch.setattr(mnist, "DRAWN_ITEMS", FEW_DRAWN)
    rng = np.random.default_rng(2)
    return {split: rng.integers(0, 2, (items, 1, 28, 28), np.uint8) for split, items in FEW_DRAWN.items()}


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, grey: dict[str, Split], suffix: str = ".gz") -> Path:
    for split, start in {"train": "train", "test": "t10k"}.items():
        write(folder / f"{start}-images-idx3-ubyte{suffix}", idx(grey[split].images[:, 0]))
        write(folder / f"{start}-labels-idx1-ubyte{suffix}", idx(grey[split].labels))
    return folder


def amat(images: np.ndarray, end: str = "\n") -> bytes:
    return "".join(" ".join(map(str, row)) + end for row in images.reshape(len(images), -1)).encode()


def write_amat(folder: Path, drawn: dict[str, np.ndarray], suffix: str = ".gz", end: str = "\n") -> Path:
    for split, images in drawn.items():
        write(folder / f"binarized_mnist_{split}.amat{suffix}", amat(images, end))
    return folder


def load(path: Path, binarize: str = "static", **options) -> MNIST:
    data = MNIST(str(path), str(path / "cache"), binarize, **{"val_items": 6, **options})
    data.prepare_data()
    return data


def rows(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_grey_levels_from_every_folder(tmp_path, grey, folder, suffix):
    write_idx(tmp_path / folder, grey, suffix)
    data = load(tmp_path, "none")
    assert data.spec.shape == (1, 28, 28) and (data.spec.levels, data.spec.classes) == (256, 10)
    assert data.class_names == list("0123456789") and "256 grey levels" in data.note
    np.testing.assert_array_equal(data.splits["test"].images, grey["test"].images)
    np.testing.assert_array_equal(data.splits["test"].labels, grey["test"].labels)
    order = np.random.default_rng(0).permutation(ITEMS["train"])
    for split, chosen in {"val": order[:6], "train": order[6:]}.items():
        np.testing.assert_array_equal(data.splits[split].images, grey["train"].images[np.sort(chosen)])
        np.testing.assert_array_equal(data.splits[split].labels, grey["train"].labels[np.sort(chosen)])


@pytest.mark.parametrize(
    ("folder", "suffix", "end"),
    [("binarized_mnist", ".gz", "\n"), (".", ".gz", "\n"), ("binarized_mnist", "", " \r\n"), (".", "", "\t")],
)
def test_the_literatures_draw(tmp_path, grey, drawn, folder, suffix, end):
    write_idx(tmp_path, grey)
    write_amat(tmp_path / folder, drawn, suffix, end)
    data = load(tmp_path)
    assert data.spec.shape == (1, 28, 28) and (data.spec.levels, data.spec.classes) == (2, 0)
    assert data.class_names == [] and data.note == ""
    for split, images in zip(("train", "val", "test"), drawn.values(), strict=True):
        assert rows(data.splits[split].images) == rows(images)
        assert data.splits[split].images.dtype == np.uint8
        assert data.splits[split].labels.tolist() == [0] * len(images)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (9, 1, 28, 28) and images.max() == 1 and not labels.any()


def test_the_literatures_draw_is_mixed_alike_every_time(tmp_path, drawn):
    write_amat(tmp_path, drawn)
    first, second = load(tmp_path, seed=0), load(tmp_path, seed=1)
    assert not np.array_equal(first.splits["train"].images, drawn["train"])
    for split in first.splits:
        np.testing.assert_array_equal(first.splits[split].images, second.splits[split].images)


def test_without_the_file_an_own_draw_that_says_so(tmp_path, grey, caplog):
    write_idx(tmp_path, grey)
    with caplog.at_level("WARNING"):
        data = load(tmp_path)
    assert data.note == "own draw (seed 0), not the paper's file"
    assert data.note in caplog.text and "binarized_mnist_" in caplog.text
    assert (data.spec.levels, data.spec.classes) == (2, 10)
    again, known = load(tmp_path, seed=1), load(tmp_path, "none")
    for split, (images, labels) in data.splits.items():
        np.testing.assert_array_equal(again.splits[split].images, images)
        np.testing.assert_array_equal(known.splits[split].labels, labels)
        assert set(np.unique(images)) == {0, 1}
        assert np.corrcoef(images.ravel(), known.splits[split].images.ravel())[0, 1] > 0.5


def test_a_draw_has_the_right_probabilities():
    grey = np.repeat(np.array([0, 1, 51, 128, 254, 255], np.uint8), 100_000)
    means = draw(grey, np.random.default_rng(0)).reshape(6, -1).mean(1)
    assert means[0] == 0 and means[-1] == 1
    np.testing.assert_allclose(means, np.array([0, 1, 51, 128, 254, 255]) / 255, atol=0.005)


def epoch(data: MNIST, number: int, skip: int = 0) -> torch.Tensor:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    loader.load_state_dict({"batches_done": skip})
    return torch.cat([images for images, _ in loader])


def test_dynamic_draws_are_new_every_epoch_and_repeatable(tmp_path, grey):
    grey["train"].images[:] = 128
    write_idx(tmp_path, grey)
    data, again = (load(tmp_path, "dynamic", batch_size=8) for _ in range(2))
    assert "dynamically binarised" in data.note and (data.spec.levels, data.spec.classes) == (2, 10)
    first, second = epoch(data, 0), epoch(data, 1)
    assert first.dtype == torch.uint8 and set(first.unique().tolist()) == {0, 1}
    assert (first != second).float().mean() > 0.4, "another epoch, another draw"
    assert (first[:8] != first[8:16]).float().mean() > 0.4, "another batch, another draw"
    assert torch.equal(epoch(again, 0), first) and torch.equal(epoch(again, 1), second)
    assert torch.equal(epoch(again, 1, skip=2), second[16:]), "resumed in the middle of an epoch"
    assert not torch.equal(epoch(load(tmp_path, "dynamic", batch_size=8, seed=5), 0), first)


def test_dynamic_evaluates_on_one_draw(tmp_path, grey):
    write_idx(tmp_path, grey)
    data, static = load(tmp_path, "dynamic", seed=3), load(tmp_path)
    for split, loader in {"val": data.val_dataloader(), "test": data.test_dataloader()}.items():
        for _ in range(2):
            assert torch.equal(torch.cat([images for images, _ in loader]), torch.tensor(static.splits[split].images))


def test_two_processes_draw_differently(tmp_path, grey):
    grey["train"].images[:] = 128
    write_idx(tmp_path, grey)
    loader = load(tmp_path, "dynamic", batch_size=8).train_dataloader()
    loader.world = 2
    first = next(iter(loader))[0]
    loader.rank = 1
    assert (first != next(iter(loader))[0]).float().mean() > 0.4


def test_the_cache_serves_only_its_own_source(tmp_path, grey, drawn, monkeypatch):
    write_idx(tmp_path, grey)
    write_amat(tmp_path, drawn)
    for binarize in ("static", "none"):
        load(tmp_path, binarize)
    monkeypatch.setattr(mnist, "read_source", lambda *words: pytest.fail("decoded again"))
    for binarize in ("static", "dynamic", "none"):
        load(tmp_path, binarize)
    monkeypatch.undo()
    grey["test"].images[:] = 7
    write_idx(tmp_path, grey)
    assert load(tmp_path, "none").splits["test"].images.max() == 7


def refused(path: Path, binarize: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        load(path, binarize)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path, grey, drawn):
    (write_amat(tmp_path / "binarized_mnist", drawn) / "binarized_mnist_valid.amat.gz").unlink()
    refused(tmp_path, "static", r"binarized_mnist is not complete: missing binarized_mnist_valid\.amat\.$")
    (write_idx(tmp_path / "mnist" / "raw", grey) / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(tmp_path, "none", r"raw is not complete: missing t10k-labels-idx1-ubyte\.$")


AMAT_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "3135 values instead of 4 times 784": lambda text: text[:-2],
    "3920 values instead": lambda text: text + text[:1568],
    "0 values instead": lambda text: b"",
    "values other than 0 and 1": lambda text: text.replace(b"1", b"2", 1),
    "two characters without a blank between": lambda text: text.replace(b"1 ", b"1.0 ", 1),
}


@pytest.mark.parametrize("reason", AMAT_DAMAGE)
def test_a_damaged_draw_is_named(tmp_path, drawn, reason):
    folder = write_amat(tmp_path, drawn)
    write(folder / "binarized_mnist_valid.amat.gz", AMAT_DAMAGE[reason](amat(drawn["valid"])))
    refused(tmp_path, "static", rf"binarized_mnist_valid\.amat\.gz is damaged or not binarised MNIST \({reason}")


IDX_DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cannot reshape": ("t10k-images-idx3-ubyte", lambda content: content[:-1]),
    "does not begin as an IDX file of 3": ("t10k-images-idx3-ubyte", lambda content: b"\0\0\x08\x01" + content[4:]),
    "does not begin as an IDX file of 1": ("t10k-labels-idx1-ubyte", lambda content: content[:7]),
    "the label 10, not one of 0 to 9": ("t10k-labels-idx1-ubyte", lambda content: content[:-1] + b"\x0a"),
    "for 11 labels": ("t10k-labels-idx1-ubyte", lambda content: b"\0\0\x08\x01\0\0\0\x0b" + content[9:]),
}


@pytest.mark.parametrize("reason", IDX_DAMAGE)
def test_damaged_idx_files_are_named(tmp_path, grey, reason):
    folder = write_idx(tmp_path, grey, "")
    name, spoil = IDX_DAMAGE[reason]
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    refused(tmp_path, "none", rf"t10k-.*ubyte.* is damaged or not MNIST \(.*{reason}")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_cut_archives_are_named(tmp_path, grey, drawn, keep):
    for binarize, file in {
        "none": write_idx(tmp_path, grey) / "train-labels-idx1-ubyte.gz",
        "static": write_amat(tmp_path, drawn) / "binarized_mnist_test.amat.gz",
    }.items():
        os.truncate(file, int(file.stat().st_size * keep))
        refused(tmp_path, binarize, f"{file.name} is damaged or not")


def test_nothing_found(tmp_path):
    for binarize in ("static", "none"):
        with pytest.raises(UsageError) as error:
            load(tmp_path, binarize)
        words = [str(tmp_path), "train-images-idx3-ubyte[.gz]", "ylecun/mnist", "paths.data=", "data=digits"]
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
        assert ("binarized_mnist_train.amat" in str(error.value)) == (binarize == "static")


def test_from_the_hub(tmp_path, grey, monkeypatch):
    import datasets
    import pyarrow as pa

    def png(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return buffer.getvalue()

    def load_dataset(name: str) -> datasets.DatasetDict:
        assert name == "ylecun/mnist"
        tables = {
            split: pa.table({"image": [{"bytes": png(i[0]), "path": ""} for i in images], "label": pa.array(labels)})
            for split, (images, labels) in grey.items()
        }
        return datasets.DatasetDict({split: datasets.Dataset(content) for split, content in tables.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = load(tmp_path, "none")
    local = load(write_idx(tmp_path / "mnist", grey).parent, "none")
    for split in local.splits:
        np.testing.assert_array_equal(hub.splits[split].images, local.splits[split].images)
        np.testing.assert_array_equal(hub.splits[split].labels, local.splits[split].labels)


@pytest.mark.parametrize("binarize", ["statik", None, 1])
def test_a_wrong_draw_is_refused(tmp_path, binarize):
    with pytest.raises(UsageError, match=r"data\.binarize is .*choose static, dynamic, none"):
        MNIST(str(tmp_path), str(tmp_path), binarize)


def real(binarize: str, tmp_path: Path, name: str) -> MNIST:
    data = MNIST(str(real_data(name).parent), str(tmp_path), binarize)
    data.prepare_data()
    return data


def test_the_real_draw(tmp_path):
    data = real("static", tmp_path, "binarized_mnist")
    assert [len(split.images) for split in data.splits.values()] == list(DRAWN_ITEMS.values())
    for images, _ in data.splits.values():
        assert images.dtype == np.uint8 and images.max() == 1 and 0.130 < images.mean() < 0.133
        assert images[..., :2, :].mean() < 0.001 < images[..., 13:15, 13:15].mean(), "the digit is in the middle"
    assert data.note == "" and data.spec.classes == 0


def test_real_grey_levels(tmp_path):
    data = real("none", tmp_path, "mnist")
    assert {name: len(split.images) for name, split in data.splits.items()} == {
        "train": 50_000,
        "val": 10_000,
        "test": 10_000,
    }
    assert np.bincount(data.splits["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean = (5 * data.splits["train"].images.mean() + data.splits["val"].images.mean()) / 6 / 255
    assert mean == pytest.approx(0.1307, abs=1e-4)


def test_padded_images_are_the_same_in_a_black_frame(tmp_path, grey):
    for split, (images, labels) in grey.items():
        name = {"train": "train", "test": "t10k"}[split]
        write(tmp_path / f"mnist/{name}-images-idx3-ubyte.gz", idx(images[:, 0]))
        write(tmp_path / f"mnist/{name}-labels-idx1-ubyte.gz", idx(labels))
    made = {}
    for pad in (0, 2):
        made[pad] = MNIST(str(tmp_path), str(tmp_path / "cache"), "none", val_items=5, pad=pad)
        made[pad].prepare_data()
    for split, (images, labels) in made[2].splits.items():
        assert images.shape[1:] == made[2].spec.shape == (1, 32, 32) and images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, :, 2:-2, 2:-2], made[0].splits[split].images)
        assert images.sum() == made[0].splits[split].images.sum()
        np.testing.assert_array_equal(labels, made[0].splits[split].labels)
    with pytest.raises(UsageError, match=r"data\.pad is -1"):
        MNIST(str(tmp_path), str(tmp_path / "cache"), "none", pad=-1)
