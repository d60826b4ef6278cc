"""Flickr8k: the folder form, the table, Persian from a file, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.captions.flickr8k import LISTS, Flickr8k
from datamodules.captions.words import decode_sentence
from datamodules.errors import UsageError

SPLITS = {"train": ["a.jpg", "b.jpg", "c.jpg"], "val": ["d.jpg"], "test": ["e.jpg"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    text, images = tmp_path / "flickr8k" / "Flickr8k_text", tmp_path / "flickr8k" / "Images"
    text.mkdir(parents=True)
    images.mkdir()
    lines = []
    for number, (split, names) in enumerate(SPLITS.items()):
        (text / LISTS[split]).write_text("\n".join(names) + "\n")
        for name in names:
            pixels = np.full((40, 60, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(images / name)
            lines += [f"{name}#{k}\tA Dog runs {'fast' * k} ." for k in range(5)]
    (text / "Flickr8k.token.txt").write_text("\n".join(lines))
    return tmp_path


def make(folder: Path, **options) -> Flickr8k:
    data = Flickr8k(str(folder), str(folder / "cache"), side=32, **options)
    data.prepare_data()
    return data


def test_the_usual_folder(folder):
    data = make(folder)
    assert {name: len(split.images) for name, split in data.splits.items()} == {"train": 3, "val": 1, "test": 1}
    assert data.spec.vocabulary[4:] == (".", "a", "dog", "fast", "fastfast", "fastfastfast", "fastfastfastfast", "runs")
    assert data.references("test")["en"][0][:2] == ["a dog runs .", "a dog runs fast ."]
    assert decode_sentence(data.splits["test"].codes[0, 1], data.spec) == "a dog runs fast ."
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (3, 3, 32, 32) and (batch.facts == -1).all() and batch.codes.shape[1] == 7


def test_persian_from_a_file_with_fewer_sentences(folder):
    names = [name for own in SPLITS.values() for name in own]
    file = folder / "fa.txt"
    file.write_text("\n".join(f"{name}\tسگي می\u200cدود." for name in names), encoding="utf-8")
    data = make(folder, language="en_fa", captions_fa=str(file))
    assert data.references("test")["fa"] == [["سگی می\u200cدود ."]] and data.splits["train"].codes.shape[1] == 6
    drawn = {int(code) for epoch in range(9) for code in data.train_dataloader().collate(
        tuple(array[:3] for array in data.splits["train"]), np.arange(3), epoch).codes[:, 0]}  # fmt: skip
    assert drawn == {data.spec.start("en"), data.spec.start("fa")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x.jpg\tسگ\ny.jpg\tسگ\na.jpg\tسگ", "names 2 images that are not there, first x.jpg, y.jpg"),
        ("x.jpg\tسگ", "names 1 images that are not there, none is left"),
        ("a.jpg\t \n", "Line 1 of .* has no sentence"),
        ("a.jpg سگ", "Line 1 of .* has no sentence"),
        (b"a.jpg\t\xff\xfe", "is not UTF-8 text"),
        ("a.jpg\tسگ", "No image of the split val"),
        ("a.jpg\t\u200c\u200f", "is empty"),
    ],
)
def test_files_of_captions_that_cannot_be_used(folder, text, said):
    file = folder / "fa.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=said):
        make(folder, language="fa", captions_fa=str(file))


def test_missing_files_are_named(folder):
    wrong = [
        ({"language": "fa"}, "need data.captions_fa=FILE"),
        ({"language": "de"}, "data.language is 'de'"),
        ({"least_count": 0}, "data.least_count is 0"),
    ]
    for options, said in wrong:
        with pytest.raises(UsageError, match=said):
            make(folder, **options)
    (folder / "flickr8k" / "Images" / "e.jpg").unlink()
    with pytest.raises(UsageError, match=r"1 images of the lists are not in .*, first e\.jpg"):
        make(folder)
    (folder / "flickr8k" / "Images" / "e.jpg").write_text("no image")
    with pytest.raises(UsageError, match=r"'e\.jpg' cannot be read"):
        make(folder)
    with pytest.raises(UsageError, match="Flickr8k is not there"):
        make(folder / "cache")


@pytest.mark.skipif(
    not (Path(os.environ.get("ETUDES_DATA", "data")) / "flickr8k_1000").is_dir(), reason="Flickr8k is not there"
)
def test_the_table_of_a_thousand(tmp_path):
    data = Flickr8k(os.environ.get("ETUDES_DATA", "data"), str(tmp_path), side=32, language="both")
    data.prepare_data()
    assert [len(data.splits[split].images) for split in ("train", "val", "test")] == [753, 113, 125]
    assert {len(own) for own in data.references("test")["ar"]} == {3} and data.spec.languages == ("en", "ar")
