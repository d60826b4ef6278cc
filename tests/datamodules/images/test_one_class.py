"""Data with a normal class: what reaches training, contrast taken away, and every wrong choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import UsageError
from datamodules.images import kvasir
from datamodules.images.digits import Digits
from datamodules.images.folder import Images
from datamodules.images.kvasir import KvasirPatches, patches
from datamodules.images.mnist import MNIST
from datamodules.images.one_class import (
    DigitsOneClass,
    ImagesOneClass,
    MNISTOneClass,
    PneumoniaNormals,
    normal_labels,
    standardised,
)
from datamodules.images.pneumonia_mnist import PneumoniaMNIST
from tests.conftest import real_data


def prepared(data):
    data.prepare_data()
    return data


@pytest.mark.parametrize("normal", [0, 8, [0, 1, 2], "3"])
def test_no_other_class_reaches_training(normal):
    data, whole = prepared(DigitsOneClass(normal=normal)), prepared(Digits())
    wanted = {int(one) for one in (normal if isinstance(normal, list) else [normal])}
    for name in ("train", "val"):
        assert set(data.splits[name].labels) == wanted
        expected = whole.splits[name].images[np.isin(whole.splits[name].labels, list(wanted))]
        np.testing.assert_array_equal(data.splits[name].images, expected)
    assert {label for _, labels in data.train_dataloader() for label in labels.tolist()} == wanted
    np.testing.assert_array_equal(data.splits["test"].images, whole.splits["test"].images)
    assert not set(data.splits["val_anomalies"].labels) & wanted
    assert len(data.splits["val"].labels) + len(data.splits["val_anomalies"].labels) == 144
    assert data.normal_names == [str(one) for one in sorted(wanted)]


def test_mnists_latest_images_validate(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(60_000) % 10
    images = np.zeros((60_000, 1, 2, 2), np.uint8)
    images[:, 0, 0] = np.stack([np.arange(60_000) // 256, np.arange(60_000) % 256], 1)
    test = (rng.integers(0, 256, (20, 1, 2, 2), np.uint8), np.arange(20) % 10)
    monkeypatch.setattr(MNIST, "published", lambda self: tuple(map(_split, ((images, labels), test))))
    data = prepared(MNISTOneClass(path=".", cache=".", normal=7))
    numbers = {name: data.splits[name].images[:, 0, 0].astype(int) @ [256, 1] for name in ("train", "val")}
    assert (numbers["train"] < 54_000).all() and len(numbers["train"]) == 5400
    assert (numbers["val"] >= 54_000).all() and len(numbers["val"]) == 600
    assert (data.splits["val"].labels == 7).all() and len(data.splits["test"].labels) == 20
    assert data.note == "" and data.spec.levels == 256


def _split(pair):
    from datamodules.images.shared.image import Split

    return Split(*pair)


def test_contrast_per_image_takes_brightness_and_contrast_away():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 140, (5, 3, 6, 7), np.uint8)
    found = standardised(images)
    values = found / 255 * 6 - 3
    assert found.dtype == np.uint8
    np.testing.assert_allclose(values.mean((1, 2, 3)), 0, atol=0.02)
    np.testing.assert_allclose(values.std((1, 2, 3)), 1, atol=0.02)
    brighter = np.clip(images.astype(int) * 2 - 60, 0, 255).astype(np.uint8)  # nothing is cut off
    assert np.abs(standardised(brighter).astype(int) - found).max() <= 1
    assert (standardised(np.full((1, 1, 4, 4), 9, np.uint8)) == 128).all()
    spike = np.zeros((1, 1, 10, 10), np.uint8)
    spike[0, 0, 0, 0] = 255
    assert standardised(spike).max() == 255, "clipped at 3 deviations"
    data = prepared(DigitsOneClass(contrast="per_image"))
    assert data.spec.levels == 256 and data.splits["val_anomalies"].images.max() > 200


def test_a_wrong_normal_class_is_a_sentence():
    names = [str(digit) for digit in range(10)]
    assert normal_labels(["3", 1], names) == [1, 3] and normal_labels("cat", ["dog", "cat"]) == [1]
    assert normal_labels(3, ["7", "3"]) == [1], "a name goes before a number"
    for wrong in (10, -1, "x", 1.5, True, [0, 12]):
        with pytest.raises(UsageError, match=r"^data\.normal is .*, but the classes are 0, 1, 2, .*choose one of them"):
            prepared(DigitsOneClass(normal=wrong))
    for wrong in ([], list(range(10))):
        with pytest.raises(UsageError, match="some classes must be normal and some not"):
            prepared(DigitsOneClass(normal=wrong))
    with pytest.raises(UsageError, match=r"data\.contrast is 'per_imag' \(did you mean 'per_image'\?\)"):
        DigitsOneClass(contrast="per_imag")
    with pytest.raises(UsageError, match="the split val has no image of it"):
        prepared(DigitsOneClass(normal=0, val_items=1))


# Own pictures


def save_classes(folder: Path, counts: dict[str, int]) -> Path:
    """Subfolders of grey squares, each class of its own levels, one class with a folder deeper."""
    for number, (name, count) in enumerate(counts.items()):
        for item in range(count):
            place = folder / name / ("deeper" if item == 0 else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("L", (6, 6), 50 * number + item).save(place / f"{item:02d}.png")
    return folder


def test_own_pictures_have_the_labels_of_torchvisions_folders(tmp_path):
    from torchvision.datasets import ImageFolder

    folder = save_classes(tmp_path / "pictures", {"fine": 7, "broken": 5, "odd": 4})
    (folder / "broken" / "damaged.png").touch()
    data = prepared(Images(str(folder), str(tmp_path / "cache"), size=6, channels=1))
    again = prepared(Images(str(folder), str(tmp_path / "cache"), size=6, channels=1))
    (folder / "broken" / "damaged.png").unlink()
    theirs = ImageFolder(str(folder))
    assert data.class_names == theirs.classes == ["broken", "fine", "odd"] and data.spec.classes == 3
    expected = {(np.asarray(image)[0, 0, 0], label) for image, label in theirs}
    for own in (data, again):
        found = {
            (image[0, 0, 0], label)
            for split in own.splits.values()
            for image, label in zip(split.images, split.labels, strict=True)
        }
        assert found == expected and len(expected) == 16


def test_pictures_outside_subfolders_have_no_labels(tmp_path):
    folder = save_classes(tmp_path / "pictures", {"a": 3, "b": 3})
    Image.new("L", (6, 6)).save(folder / "loose.png")
    assert prepared(Images(str(folder), str(tmp_path / "cache"), size=6)).spec.classes == 0
    single = save_classes(tmp_path / "single", {"a": 4})
    assert prepared(Images(str(single), str(tmp_path / "cache"), size=6)).class_names == []


def test_own_pictures_with_a_normal_subfolder(tmp_path):
    folder = save_classes(tmp_path / "pictures", {"fine": 20, "broken": 5, "odd": 4})
    options = {"path": str(folder), "cache": str(tmp_path / "cache"), "size": 6}
    data = prepared(ImagesOneClass(normal="fine", **options))
    sizes = {name: len(split.labels) for name, split in data.splits.items()}
    assert sizes == {"train": 16, "val": 2, "val_anomalies": 0, "test": 2 + 9}
    assert set(data.splits["train"].labels) == {1} and np.bincount(data.splits["test"].labels).tolist() == [5, 2, 4]
    seen = [image.tobytes() for name in ("train", "val", "test") for image in data.splits[name].images]
    assert len(set(seen)) == 29, "no picture is in two splits"
    with pytest.raises(UsageError, match=r"data\.normal is 'fin' \(did you mean 'fine'\?\)"):
        prepared(ImagesOneClass(normal="fin", **options))
    with pytest.raises(UsageError, match=r"needs data\.normal=SUBFOLDER"):
        ImagesOneClass(**options)
    Image.new("L", (6, 6)).save(folder / "loose.png")
    with pytest.raises(UsageError, match="has no classes: put all pictures into subfolders"):
        prepared(ImagesOneClass(normal="fine", **options))


# PneumoniaMNIST


def save_xrays(folder: Path, **replaced) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, items in {"train": 12, "val": 6, "test": 8}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (items, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(items, dtype=np.uint8) % 3 > 0).astype(np.uint8)[:, None]
    folder.mkdir(exist_ok=True)
    np.savez(folder / "pneumoniamnist.npz", **{**arrays, **replaced})
    return folder


def test_xrays_are_read_as_they_are(tmp_path):
    folder = save_xrays(tmp_path / "pneumonia_mnist")
    data = prepared(PneumoniaMNIST(str(tmp_path), str(tmp_path / "cache")))
    with np.load(folder / "pneumoniamnist.npz") as kept:
        for name, split in data.splits.items():
            np.testing.assert_array_equal(split.images[:, 0], kept[f"{name}_images"])
            np.testing.assert_array_equal(split.labels, kept[f"{name}_labels"][:, 0])
    assert data.class_names == ["normal", "pneumonia"] and data.spec.shape == (1, 28, 28)
    normals = prepared(PneumoniaNormals(path=str(tmp_path), cache=str(tmp_path / "cache")))
    assert [len(normals.splits[name].labels) for name in ("train", "val", "val_anomalies", "test")] == [4, 2, 4, 8]


def test_missing_and_damaged_xrays_are_sentences(tmp_path):
    with pytest.raises(UsageError, match=r"pneumoniamnist\.npz in pneumonia_mnist/.*medmnist\.com"):
        prepared(PneumoniaMNIST(str(tmp_path), str(tmp_path / "cache")))
    folder = tmp_path / "pneumonia_mnist"
    damages = {
        "labels of the shape": {"val_labels": np.zeros(6, np.uint8)},
        "has the label 2": {"val_labels": np.full((6, 1), 2, np.uint8)},
        r"images \(6, 1, 27, 28\)": {"val_images": np.zeros((6, 27, 28), np.uint8)},
        "allow_pickle": {"val_images": np.array([{}], object)},
    }
    for said, replaced in damages.items():
        save_xrays(folder, **replaced)
        with pytest.raises(UsageError, match=rf"pneumoniamnist\.npz is damaged or not PneumoniaMNIST \(.*{said}"):
            prepared(PneumoniaMNIST(str(tmp_path), str(tmp_path / "cache")))
    (folder / "pneumoniamnist.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UsageError, match="is damaged or not PneumoniaMNIST"):
        prepared(PneumoniaMNIST(str(tmp_path), str(tmp_path / "cache")))


def test_the_real_xrays(tmp_path):
    folder = real_data("pneumonia_mnist").parent
    data = prepared(PneumoniaNormals(path=str(folder), cache=str(tmp_path)))
    sizes = {name: len(split.labels) for name, split in data.splits.items()}
    assert sizes == {"train": 1214, "val": 135, "val_anomalies": 389, "test": 624}
    assert data.splits["test"].labels.sum() == 390


# Kvasir-SEG


def save_pictures(folder: Path) -> None:
    """Five noisy pictures of 240×200 with a square of a mask each."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        Image.fromarray(rng.integers(40, 250, (400, 440, 3), np.uint8)).save(folder / f"images/{number}.jpg")
        mask = np.zeros((400, 440), np.uint8)
        mask[100 : 180 + 4 * number, 40:120] = 255
        Image.fromarray(mask).save(folder / f"masks/{number}.jpg")


def test_no_patch_that_trains_is_near_a_polyp(tmp_path, monkeypatch):
    save_pictures(tmp_path / "kvasir_seg")
    monkeypatch.setattr(kvasir, "ITEMS", {"train": 300, "val": 40})
    data = prepared(KvasirPatches(str(tmp_path), held_out=1))
    assert {name: len(split.labels) for name, split in data.splits.items() if name != "test"} == {
        "train": 300,
        "val": 40,
    }
    assert data.picture.shape == (3, 100, 110) and data.mask.shape == (100, 110)
    cut, near, places = patches(data.picture, data.mask, 2, 8)
    for image, touching, (top, left) in list(zip(cut, near, places, strict=True))[::37]:
        np.testing.assert_array_equal(image, data.picture[:, top : top + 32, left : left + 32])
        rows, columns = np.nonzero(data.mask)
        away = max(
            np.maximum(top - rows, rows - top - 31).min(), 0
        ), max(np.maximum(left - columns, columns - left - 31).min(), 0)  # fmt: skip
        assert touching == (max(away) <= 8)
    assert max(top for top, _ in places) == 68 and max(left for _, left in places) == 78, "up to the edge"
    assert 0 < data.splits["test"].labels.mean() < 1
    with pytest.raises(UsageError, match=r"data\.held_out is 5, but the pictures are numbered 0 to 4"):
        KvasirPatches(str(tmp_path), held_out=5)
    (tmp_path / "kvasir_seg/masks/3.jpg").unlink()
    with pytest.raises(UsageError, match="is not complete"):
        prepared(KvasirPatches(str(tmp_path)))
    with pytest.raises(UsageError, match=r"Kvasir-SEG was not found as \*\.jpg"):
        prepared(KvasirPatches(str(tmp_path / "cache")))
