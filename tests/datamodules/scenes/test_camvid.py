"""CamVid's divisions and refusals; and one's own pictures with masks."""

from __future__ import annotations

import io
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datamodules.errors import UsageError
from datamodules.scenes.camvid import CamVid
from datamodules.scenes.masked_images import MaskedImages, images_or_scenes
from lightning_modules.segmentation.scores import class_weights
from tests.conftest import real_data

FRAMES = {
    "train": [f"0016E5_{n:05d}.png" for n in range(300, 900, 30)] + [f"0006R0_f{n:05d}.png" for n in range(0, 300, 30)]
    + [f"0001TP_{n:06d}.png" for n in range(60, 180, 30)],
    "val": [f"0016E5_{n:05d}.png" for n in (315, 317)],
    "test": [f"0001TP_{n:06d}.png" for n in (180, 210)] + [f"Seq05VD_f{n:05d}.png" for n in (0, 30, 60)],
}  # fmt: skip


def save(folder, spoil: int | None = None):
    rng = np.random.default_rng(0)

    def encoded(pixels: np.ndarray) -> dict[str, bytes]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        return {"bytes": file.getvalue()}

    for split, names in FRAMES.items():
        rows = []
        for name in names:
            mask = np.kron(rng.integers(0, 12, (9, 12)), np.ones((40, 40))).astype(np.uint8)
            if spoil and split == "val":
                mask[:2, :3] = spoil
            image = np.repeat(mask[..., None] * 20, 3, 2)
            rows.append({"image": encoded(image), "label": encoded(mask), "name": name})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camvid")
    save(folder)
    return folder


def made(files, **options) -> CamVid:
    data = CamVid(str(files), str(files / "cache"), batch_size=3, **options)
    data.prepare_data()
    return data


def test_the_official_split_and_its_sizes(files):
    data = made(files, size=[90, 120])
    assert [len(data.splits[split].images) for split in ("train", "val", "test")] == [34, 2, 5]
    assert data.splits["test"].images.shape[2:] == (90, 120) and data.splits["test"].masks.shape[1:] == (360, 480)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (3, 3, 180, 240) and batch.masks.shape == (3, 180, 240)
    assert {name: rows.tolist() for name, rows in data.parts("test").items()} == {
        "0001TP": [0, 1],
        "Seq05VD": [2, 3, 4],
    }
    np.testing.assert_array_equal(data.seconds_from_training("test"), [1, 2, np.inf, np.inf, np.inf])
    assert data.seconds_from_training("val").tolist() == [0.5, 13 / 30]


def test_the_split_by_video_has_no_test_frames_neighbour(files):
    data = made(files, split="video")
    assert data.frames["test"] == FRAMES["test"]
    assert data.frames["val"] == ["0016E5_00840.png", "0016E5_00870.png", "0006R0_f00270.png"]
    assert len(data.frames["train"]) == 27 and np.isinf(data.seconds_from_training("test")).all()


def test_the_random_split_is_of_all_frames_and_can_be_thinned(files):
    one, other = made(files, split="random"), made(files, split="random", split_seed=1)
    assert sorted(chain(*one.frames.values())) == sorted(chain(*FRAMES.values()))
    assert one.frames["test"] != other.frames["test"] and len(one.frames["test"]) == 5
    thin = made(files, train_items=12)
    assert len(thin.frames["train"]) == 12 and thin.frames["train"][0] == FRAMES["train"][0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "vidoe"}, "data.split is 'vidoe'.*video"),
        ({"crop": [720, 480]}, r"data.crop is \[720, 480\].*\[360, 480\] at most"),
        ({"crop": [16, 64]}, "data.crop is .*32 pixels or more"),
        ({"scale": [1.0, 0.5]}, "data.scale is .*least and most"),
        ({"size": [16, 64]}, "data.size is .*32 pixels or more"),
        ({"train_items": 99}, "data.train_items is 99, but this split has 34"),
    ],
)
def test_what_cannot_be_is_one_sentence(files, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(files, **options)


def test_files_that_are_not_there_or_hold_no_class(files, tmp_path):
    with pytest.raises(UsageError, match=r"CamVid was not found.*data=digit_scenes"):
        made(tmp_path)
    save(tmp_path, spoil=77)
    with pytest.raises(UsageError, match=r"val-00000.*0016E5_00315.png has the value 77 in 6 pixels.*0 to 10, or 11"):
        made(tmp_path)


@pytest.mark.slow
def test_the_published_shares_and_weights():
    real_data("camvid")
    data = made(real_data("camvid"))
    pixels = data.pixels_of("train")
    sizes = np.full(len(pixels), 360 * 480)
    median = [0.279, 0.202, 4.787, 0.149, 1, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    np.testing.assert_allclose(class_weights(pixels, sizes, "median"), median, atol=6e-4)
    enet = [5.6, 4.3, 33.6, 3.3, 15.5, 8.7, 31.5, 32.0, 12.8, 38.0, 43.9]
    np.testing.assert_allclose(class_weights(pixels, sizes, "enet"), enet, atol=0.06)


# One's own pictures


def pictures(folder, mode: str = "L", mask_size=(48, 40), value: int = 1):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(5):
        Image.new("RGB", (48, 40), (number * 20, 90, 90)).save(folder / "images" / f"{number}.jpg")
        mask = np.zeros(mask_size[::-1], np.uint8)
        mask[10:30, 10:30] = value
        mask[:4] = 255
        Image.fromarray(mask).convert(mode).save(folder / "masks" / f"{number}.png")
    return {"path": str(folder / "images"), "masks": str(folder / "masks"), "cache": str(folder / "cache"), "size": 32}


def test_ones_own_pictures_with_masks(tmp_path):
    data = images_or_scenes(**pictures(tmp_path, value=2), names=["a", "b", "c"])
    data.prepare_data()
    assert isinstance(data, MaskedImages) and data.spec.names == ("a", "b", "c") and data.spec.ignore == 255
    assert set(np.unique(data.splits["train"].masks)) == {0, 2, 255}
    assert next(iter(data.test_dataloader())).masks.shape == (1, 32, 32)
    found = images_or_scenes(**pictures_again(tmp_path))
    found.prepare_data()
    assert found.spec.names == ("class 0", "class 1", "class 2")


def pictures_again(folder):
    return {"path": str(folder / "images"), "masks": str(folder / "masks"), "cache": str(folder / "cache"), "size": 32}


@pytest.mark.parametrize(
    ("how", "options", "sentence"),
    [
        ({"mode": "RGB"}, {}, "The mask .*0.png holds colours.*grey or palette PNG"),
        ({"mask_size": (48, 41)}, {}, "0.jpg has 48×40 pixels, but its mask .* 48×41: make them of one size"),
        ({"value": 7}, {"names": ["a", "b"]}, "The mask 0.png has the value 7 in 400 pixels.*0 to 1, or 255 for void"),
    ],
)
def test_masks_that_cannot_be_are_one_sentence(tmp_path, how, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        images_or_scenes(**pictures(tmp_path, **how), **options).prepare_data()


def test_a_picture_without_a_mask_and_names_without_masks(tmp_path):
    options = pictures(tmp_path)
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(UsageError, match=r"3.jpg has no mask: .*3.png is not there"):
        images_or_scenes(**options).prepare_data()
    with pytest.raises(UsageError, match=r"data.names are those of the classes in masks"):
        images_or_scenes(path=options["path"], cache=options["cache"], names=["a"])
