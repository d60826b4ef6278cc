"""A user's own pictures: every kind, broken ones, huge ones, and every mistake a sentence."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from datamodules.errors import UsageError
from datamodules.images.folder import Images, divide
from datamodules.images.shared import pictures
from datamodules.images.shared.pictures import read_picture
from tests.forked import Command

KINDS = [("RGB", "png"), ("L", "png"), ("P", "gif"), ("RGBA", "png"), ("RGB", "jpg"), ("RGB", "webp"), ("L", "JPEG")]
KINDS += [("1", "png"), ("LA", "png"), ("RGB", "bmp"), ("I;16", "png"), ("CMYK", "tif"), ("P", "png"), ("L", "TIF")]


def load(path: Path | None, cache: Path, **options) -> Images:
    data = Images(None if path is None else str(path), str(cache), **options)
    data.prepare_data()
    return data


def all_images(data: Images) -> np.ndarray:
    return np.concatenate([split.images for split in data.splits.values()])


def save_plain(folder: Path, count: int) -> Path:
    """Grey squares of different levels: 00.png, 01.png …"""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("L", (20, 20), 10 * number).save(folder / f"{number:02d}.png")
    return folder


def break_some(folder: Path) -> list[str]:
    """Five files that are not what their names say."""
    picture = Image.effect_noise((40, 40), 90)
    for name in ("cut.jpg", "cut.png"):
        picture.save(folder / name)
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
    (folder / "empty.png").touch()
    (folder / "text.webp").write_text("no picture")
    (folder / "program.gif").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    return ["cut.jpg", "cut.png", "empty.png", "program.gif", "text.webp"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """200 small pictures of all kinds, five broken files, a CMYK JPEG, a picture of 10,000×10,000, and other files."""
    folder = tmp_path_factory.mktemp("my pictures = mine")
    rng = np.random.default_rng(0)
    for number in range(200):
        mode, suffix = KINDS[number % len(KINDS)]
        height, width = rng.integers(5, 90, 2)
        file = folder / f"part {number % 3}" / f"ü{number}.{suffix}"
        file.parent.mkdir(exist_ok=True)
        grey = Image.fromarray(rng.integers(0, 256, (height, width), np.uint8))
        grey.convert(mode).save(file)
    break_some(folder)
    Image.new("CMYK", (50, 60), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    Image.new("L", (10_000, 10_000), 77).save(folder / "zz_huge.png", compress_level=1)
    (folder / ".hidden.png").write_text("what some systems leave beside a picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def peak() -> float:
    """MB that this process alone has had at most: ru_maxrss counts the one that started it."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def prepare() -> None:
    """Prepares the pictures of its first word; says what they are, and what memory they took."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", force=True)
    before = peak()
    data = Images(sys.argv[1], "cache")
    data.prepare_data()
    sizes = {name: len(split.images) for name, split in data.splits.items()}
    print(json.dumps({"peak": peak(), "grown": peak() - before, "sizes": sizes, "note": data.note}))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process its peak memory this way")
def test_a_mixed_folder_in_bounded_memory(mixed, tmp_path):
    for _ in range(2):  # decoded, then from the cache
        done = Command([str(mixed)], tmp_path, prepare).ended()
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["sizes"] == {"train": 162, "val": 20, "test": 20}
        assert found["peak"] < 1500 and 0 < found["grown"] < 300, "MB; the huge picture alone is 100"
        assert found["note"] == "5 of 207 pictures cannot be read and are left out"
        (warning,) = done.stderr.splitlines()
        assert all(
            name in warning for name in ("cut.jpg (", "cut.png (", "empty.png (", "program.gif (", "text.webp (")
        )


def test_unreadable_pictures_up_to_the_limit(tmp_path, caplog):
    folder = save_plain(tmp_path / "pictures", 6)
    names = break_some(folder)
    options = {"size": 4, "val_fraction": 0.2, "test_fraction": 0.2}
    with pytest.raises(UsageError, match=r"more than 4 pictures cannot be read: cut\.jpg \(.*data\.max_unreadable=N"):
        load(folder, tmp_path / "cache", max_unreadable=4, **options)
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        data = load(folder, tmp_path / "cache", max_unreadable=5, **options)
        (record,) = caplog.records
        assert all(name in record.getMessage() for name in names) and str(folder / "cut") not in record.getMessage()
        assert sorted(all_images(data).max((1, 2, 3))) == [0, 10, 20, 30, 40, 50], "all readable ones, and only they"
    with pytest.raises(UsageError, match="more than 0 pictures"):
        load(folder, tmp_path / "cache", max_unreadable=0, **options)


def read(file: Path, channels: int = 3, size: tuple[int, int] = (8, 8), crop: bool = True) -> np.ndarray:
    return read_picture(file, channels, *size, crop=crop)


def palette(transparent: bool) -> Image.Image:
    picture = Image.new("P", (30, 20), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    if transparent:
        picture.info["transparency"] = 1
    return picture


COLOURS = {
    "RGB": (Image.new("RGB", (30, 20), (200, 100, 50)), "png", (200, 100, 50)),
    "grey": (Image.new("L", (30, 20), 100), "png", (100, 100, 100)),
    "1 bit": (Image.new("1", (30, 20), 1), "png", (255, 255, 255)),
    "palette": (palette(False), "png", (200, 100, 50)),
    "palette, transparent": (palette(True), "png", (255, 255, 255)),
    "GIF": (palette(False), "gif", (200, 100, 50)),
    "CMYK": (Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "tif", (255, 0, 0)),
    "CMYK JPEG": (Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "jpg", (254, 0, 0)),
    "opaque": (Image.new("RGBA", (30, 20), (200, 100, 50, 255)), "png", (200, 100, 50)),
    "transparent": (Image.new("RGBA", (30, 20), (0, 0, 0, 0)), "png", (255, 255, 255)),
    "half transparent": (Image.new("RGBA", (30, 20), (200, 100, 50, 128)), "webp", (227, 177, 152)),
    "grey, transparent": (Image.new("LA", (30, 20), (100, 0)), "png", (255, 255, 255)),
    "16 bits": (Image.fromarray(np.full((20, 30), 0x6480, np.uint16)), "png", (100, 100, 100)),
    "16 bits TIFF": (Image.fromarray(np.full((20, 30), 0x6480, np.uint16)), "tif", (100, 100, 100)),
    "16 in 32 bits": (Image.fromarray(np.full((20, 30), 0x6480, np.int32)), "tif", (100, 100, 100)),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_every_kind_is_converted(tmp_path, kind):
    picture, suffix, colour = COLOURS[kind]
    picture.save(file := tmp_path / f"picture.{suffix}")
    pixels = read(file)
    assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.reshape(3, -1).T, np.broadcast_to(colour, (64, 3)), atol=3)
    grey = read(file, channels=1)
    assert grey.shape == (1, 8, 8)
    np.testing.assert_allclose(grey, np.dot(colour, (0.299, 0.587, 0.114)), atol=3)


@pytest.mark.parametrize("values", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)])
def test_values_without_a_known_range_are_unreadable(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="neither 8 nor 16 bits"):
        read(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    """Red to the left, blue at the lower right, white else; stored as a camera held that way stores it."""
    upright = np.full((60, 90, 3), 255, np.uint8)
    upright[:, :30], upright[30:, 60:] = (255, 0, 0), (0, 0, 255)
    stored = Image.fromarray(upright)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation != 1:
        stored = stored.transpose(back.get(orientation, pictures.UPRIGHT[orientation]))
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    stored.save(tmp_path / f"x.{suffix}", exif=exif)
    pixels = read(tmp_path / f"x.{suffix}", size=(60, 90)).transpose(1, 2, 0).astype(int)
    assert np.abs(pixels - upright).mean() < 4
    pixels = read(tmp_path / f"x.{suffix}", size=(6, 9), crop=False).transpose(1, 2, 0).astype(int)
    assert pixels[1, 1, 0] > 200 > 60 > pixels[1, 1, 2] and pixels[4, 7, 2] > 200 > 60 > pixels[4, 7, 0]


def test_crop_keeps_the_middle_and_stretch_all(tmp_path):
    picture = np.zeros((20, 60), np.uint8)
    picture[:, 20:40] = 255
    for name, values in {"wide": picture, "high": picture.T}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        assert read(tmp_path / f"{name}.png", 1, (10, 10)).mean() > 250
        assert 70 < read(tmp_path / f"{name}.png", 1, (10, 10), crop=False).mean() < 100
    assert read(tmp_path / "wide.png", 1, (10, 30)).mean() == pytest.approx(85, abs=8), "nothing is cut"


def test_every_proportion_crops(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        have, want = rng.integers(1, 2000, 2).tolist(), rng.integers(1, 300, 2).tolist()
        left, top, right, bottom = pictures.centre(have, want)
        assert 0 <= left < right <= have[0] and 0 <= top < bottom <= have[1]
        assert (right - left) * want[1] == pytest.approx((bottom - top) * want[0])


def test_a_large_jpeg_looks_the_same_as_decoded_in_full(tmp_path, monkeypatch):
    rows, columns = np.mgrid[:1600, :2400]
    picture = np.stack([rows // 8, columns // 10, (rows + columns) // 16], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.jpg", quality=95)
    fast = read(tmp_path / "x.jpg", size=(32, 32)).astype(int)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *words: None)
    assert np.abs(fast - read(tmp_path / "x.jpg", size=(32, 32))).max() <= 3


def test_a_picture_beyond_the_limit_is_unreadable(tmp_path, monkeypatch, caplog):
    folder = save_plain(tmp_path / "pictures", 4)
    Image.new("1", (300, 300)).save(folder / "large.png")
    before = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(pictures, "MAX_PIXELS", 80_000)
    load(folder, tmp_path / "cache")
    assert "large.png (Image size (90000 pixels) exceeds limit of 80000" in caplog.text
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_splits_are_fixed_disjoint_and_complete(tmp_path):
    folder = save_plain(tmp_path / "pictures", 20)
    first = load(folder, tmp_path / "cache", size=OmegaConf.create([4, 6]), channels=1, seed=0)
    second = load(folder, tmp_path / "other", size=[4, 6], channels=1, seed=1)
    assert first.spec.shape == (1, 4, 6) and (first.spec.levels, first.spec.classes) == (256, 0)
    assert first.class_names == [] and first.note == ""
    assert {name: len(split.images) for name, split in first.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(all_images(first).max((1, 2, 3))) == list(range(0, 200, 10))
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.images, second.splits[name].images)
    images, labels = next(iter(first.train_dataloader()))
    assert images.shape == (16, 1, 4, 6) and not labels.any()


def test_the_cache_follows_the_files_and_the_options(tmp_path, monkeypatch):
    folder = save_plain(tmp_path / "pictures", 4)
    first = load(folder, tmp_path / "cache")
    assert {split: len(part.images) for split, part in first.splits.items()} == {"train": 2, "val": 1, "test": 1}
    with monkeypatch.context() as patch:
        patch.setattr("datamodules.images.folder.read_picture", lambda *words, **options: pytest.fail("decoded again"))
        np.testing.assert_array_equal(all_images(load(folder, tmp_path / "cache", seed=3)), all_images(first))
    for options in ({"size": 8}, {"channels": 1}, {"fit": "stretch"}):
        load(folder, tmp_path / "cache", **options)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 4
    Image.new("L", (20, 20), 255).save(folder / "03.png")
    assert all_images(load(folder, tmp_path / "cache")).max() == 255, "an altered picture is seen"
    (folder / "02.png").unlink()
    assert len(all_images(load(folder, tmp_path / "cache"))) == 3


def refused(words: str, *arguments, **options) -> None:
    with pytest.raises(UsageError, match=words) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)


def test_every_wrong_folder_is_a_sentence(tmp_path):
    cache = tmp_path / "cache"
    refused(r"data=images needs data\.path=FOLDER", None, cache)
    refused(r"data\.path=.*absent does not exist", tmp_path / "absent", cache)
    (tmp_path / "file.png").touch()
    refused(r"file\.png is a file, not a folder", tmp_path / "file.png", cache)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    refused(r"empty has no pictures: none of its files ends in \.png", tmp_path / "empty", cache)
    refused(r"has 2 readable pictures, but at least 3", save_plain(tmp_path / "two", 2), cache)
    refused(r"has 1 readable picture, but at least 3", save_plain(tmp_path / "one", 1), cache)
    few = save_plain(tmp_path / "few", 4)
    refused(r"of 4 pictures leave none to train", few, cache, val_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("size", [0, -1, 2.5, "32", None, [32], [1, 2, 3], [8, 0], ["a", "b"]]),
        ("fit", ["krop", None]),
        ("channels", [2, 4, "3", None]),
        ("val_fraction", [0, 1, -0.1, "a", None]),
        ("test_fraction", [0, 1.5]),
        ("max_unreadable", [-1, 0.5, None]),
    ],
)
def test_every_wrong_option_is_a_sentence(tmp_path, option, values):
    for value in values:
        with pytest.raises(UsageError, match=rf"^data\.{option} is "):
            Images(str(tmp_path), str(tmp_path), **{option: value})


@pytest.mark.parametrize("items", [3, 4, 10, 1001])
def test_every_split_gets_its_share(tmp_path, items):
    splits = divide(items, 0.1, 0.2, tmp_path)
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(items))
    assert abs(len(splits["val"]) - 0.1 * items) < 1 and abs(len(splits["test"]) - 0.2 * items) < 1
