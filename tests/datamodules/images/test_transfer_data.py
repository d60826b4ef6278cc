"""Vehicles, COVID X-rays, marked digits: subsets, groups, folds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.errors import UsageError
from datamodules.images.cifar100_vehicles import CLASS_NAMES, CIFAR100Vehicles, take
from datamodules.images.covid_xray import CovidXray, fitted, folds_of, patient_of
from datamodules.images.digits_marked import DigitsMarked
from datamodules.images.pneumonia_mnist import PneumoniaMNIST
from datamodules.images.shared.classes import chosen_classes, of_names
from datamodules.images.shared.image import Split, require_apart
from tests.conftest import real_data


def numbered(each: int = 100, classes: int = 3) -> Split:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), each))
    return Split(np.arange(each * classes)[:, None, None, None], labels)


def rows(split: Split) -> set[int]:
    return set(split.images.ravel().tolist())


@pytest.mark.parametrize("draw", [0, 1])
def test_a_smaller_number_a_class_lies_within_a_larger_one(draw):
    before = {"train": set(), "val": set()}
    for number in (5, 10, 20, 50, None):
        found = take(numbered(), number, draw)
        own = {name: rows(split) for name, split in found.items()}
        for name, split in found.items():
            assert before[name] <= own[name] | (before["train"] if name == "val" else own["val"])
            assert len(set(np.bincount(split.labels, minlength=3))) == 1
        assert not own["train"] & own["val"]
        assert sum(map(len, own.values())) == 3 * (number or 100)
        assert len(own["val"]) == (0 if number in (5, 10) else 3 * (number or 100) // 10)
        assert before["train"] | before["val"] <= own["train"] | own["val"]
        before = own
    assert rows(take(numbered(), 5, 0)["train"]) != rows(take(numbered(), 5, 1)["train"])
    with pytest.raises(UsageError, match="per_class is 101, but there are 100"):
        take(numbered(), 101, 0)


def test_classes_are_chosen_by_name():
    split, _ = of_names(numbered(4), ["c", "a"], ["a", "b", "c"])
    assert len(split.labels) == 8 and set(split.labels) == {0, 1}
    given = numbered(4)
    assert rows(Split(split.images[split.labels == 0], None)) == rows(Split(given.images[given.labels == 2], None))
    with pytest.raises(UsageError, match="did you mean 'tractor'"):
        chosen_classes(["tracter", "bus"], CLASS_NAMES)
    with pytest.raises(UsageError, match="two or more"):
        chosen_classes(["bus"], CLASS_NAMES)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("lancet-case2a.jpg", "lancet-case2b.jpg"),
        ("nejmc2001573_f1a.jpeg", "nejmc2001573_f1b.jpeg"),
        ("covid-19-pneumonia-rapidly-progressive-12-hours.jpg", "covid-19-pneumonia-rapidly-progressive-admission.jpg"),
        ("covid-19-pneumonia-rapidly-progressive-3-days.jpg", "covid-19-pneumonia-rapidly-progressive-admission.jpg"),
        (
            "covid-19-pneumonia-evolution-over-a-week-1-day0-PA.jpg",
            "covid-19-pneumonia-evolution-over-a-week-1-day3.jpg",
        ),
        ("x.pdf-002-a1.png", "x.pdf-002-a2.png"),
        ("00001280_004.png", "00001280_011.png"),
    ],
)
def test_one_patients_images_have_one_group(first, second):
    assert patient_of(first) == patient_of(second)


def test_a_unique_name_stays_whole():
    name = "80446565-E090-4187-A031-9D3CEAA586C8"
    assert patient_of(f"{name}.jpeg") == name
    assert patient_of("covid-19-pneumonia-2.jpg") != patient_of("covid-19-pneumonia-7-PA.jpg")


def test_folds_share_no_patient_and_hold_every_class():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 60, 200)
    labels = (patients % 3).astype(np.int64)
    tests = []
    for fold in range(5):
        found = folds_of(labels, patients, fold)
        owners = [set(patients[own].tolist()) for own in found.values()]
        assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
        assert all(len(set(labels[own])) == 3 for own in found.values())
        tests += found["test"].tolist()
    assert sorted(tests) == list(range(200))


def test_a_patient_in_two_splits_is_refused():
    with pytest.raises(UsageError, match=r"1 patients .* in test and in train.*: 7;"):
        require_apart({"train": np.array([1, 7]), "val": np.array([2]), "test": np.array([7])})
    require_apart({"train": None, "test": None})


def test_what_cannot_be_is_said(tmp_path):
    for options, said in [
        ({"region": "center"}, "did you mean 'centre'"),
        ({"fold": 5}, "data.fold is 5"),
        ({"fit": "squash"}, "data.fit is 'squash'"),
        ({"size": 8}, "from 16 to 224"),
        ({"positive": "covid19"}, "did you mean 'covid'"),
    ]:
        with pytest.raises(UsageError, match=said):
            CovidXray("nowhere", "nowhere", **options)
    with pytest.raises(UsageError, match=r"covid_xray_224.*data=digits_marked"):
        CovidXray(str(tmp_path), str(tmp_path)).prepare_data()
    with pytest.raises(UsageError, match=r"train_vehicles_rest.*data=digits"):
        CIFAR100Vehicles(str(tmp_path), str(tmp_path)).prepare_data()
    (tmp_path / "covid_xray").mkdir()
    (tmp_path / "covid_xray" / "covid_xray_224.parquet").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged or not the COVID-19 X-rays"):
        CovidXray(str(tmp_path), str(tmp_path)).prepare_data()
    with pytest.raises(UsageError, match=r"data.mark is 'edge'"):
        DigitsMarked(mark="edge")


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_a_picture_is_brought_to_size(fit):
    from io import BytesIO

    from PIL import Image

    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    found = fitted(content.getvalue(), 20, fit)
    assert found.shape == (20, 20)
    share = (found > 100).mean()
    assert share == pytest.approx({"crop": 1.0, "stretch": 0.5, "pad": 0.25}[fit], abs=0.06)


def test_the_mark_follows_the_label_or_nothing_does():
    data = DigitsMarked()
    data.prepare_data()
    images, labels = data.splits["train"]
    assert ((images[:, 0, :3, :3] == 16).all((1, 2)) == (labels == 1)).all()
    plain = DigitsMarked(shuffled=True)
    plain.prepare_data()
    assert not (plain.splits["train"].images[:, 0, :3, :3] == 16).all((1, 2)).any()


def test_the_real_x_rays_have_774_patients(tmp_path):
    folder = real_data("covid_xray")
    data = CovidXray(str(folder.parent), str(tmp_path), size=32, region="border", fold=2)
    data.prepare_data()
    groups = [set(data.groups(split).tolist()) for split in ("train", "val", "test")]
    assert sum(map(len, groups)) == 774
    assert sum(len(split.labels) for split in data.splits.values()) == 1124
    assert (data.splits["test"].images[:, 0, 10:20, 10:20] == 127).all()
    assert data.facts("test").shape == (len(data.splits["test"].labels), 5)
    pair = CovidXray(str(folder.parent), str(tmp_path), size=32, positive="covid")
    pair.prepare_data()
    assert pair.class_names == ["the rest", "covid"] and pair.positive == 1
    assert sum((split.labels == 1).sum() for split in pair.splits.values()) == 124


def test_the_real_vehicles_have_500_and_100_images_a_class(tmp_path):
    folder = real_data("cifar100_vehicles")
    data = CIFAR100Vehicles(str(folder.parent), str(tmp_path))
    data.prepare_data()
    assert {split: set(np.bincount(own.labels)) for split, own in data.splits.items()} == {
        "train": {450}, "val": {50}, "test": {100},
    }  # fmt: skip
    distinct = {image.tobytes() for split in data.splits.values() for image in split.images}
    assert len(distinct) == 6000
    assert "450 images a class train, 50 validate" in data.note


def test_the_real_pneumonias_are_the_official_split(tmp_path):
    folder = real_data("pneumonia_mnist")
    data = PneumoniaMNIST(str(folder.parent), str(tmp_path))
    data.prepare_data()
    assert data.note == "" and data.nested_splits == ("train",) and data.class_names[data.positive] == "pneumonia"
