"""CIFAR-100: its hierarchy, made-up parquet files of a few images, and the real ones where ETUDES_DATA has them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.images.cifar100 import CIFAR100, CLASS_NAMES, SUPERCLASSES
from datamodules.images.shared.image import Split
from reporting.folder import CONF
from tests.conftest import real_data
from tests.datamodules.images.cifar10_written import table

pytestmark = pytest.mark.usefixtures("no_hub")

GROUPS = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "cifar100.yaml").groups)


def load(path, cache, **options) -> CIFAR100:
    data = CIFAR100(str(path), str(cache), options.pop("groups", GROUPS), **options)
    data.prepare_data()
    return data


def write(path, train="train", items=12) -> dict[str, Split]:
    folder = path / "cifar100"
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(1), {}
    for stem in (train, "test"):
        made[stem] = Split(rng.integers(0, 256, (items, 3, 32, 32), np.uint8), rng.integers(0, 100, items))
        content = table(made[stem]).rename_columns(["img", "fine_label"])
        pq.write_table(content, folder / f"{stem}-00000-of-00001.parquet")
    return made


def test_nine_groups_hold_each_superclass_once():
    assert len(GROUPS) == 9 and len(SUPERCLASSES) == 20 and len(set(CLASS_NAMES)) == 100
    assert all(len(members) == 5 for members in SUPERCLASSES.values())
    data = CIFAR100("nowhere", "nowhere", GROUPS)
    assert (max(data.spec.supers), max(data.spec.groups)) == (19, 8)
    shark = CLASS_NAMES.index("shark")
    names, supers, groups = data.hierarchy
    assert (names[1][supers[shark]], names[2][groups[shark]]) == ("fish", "aquatic animals")


@pytest.mark.parametrize("train", ["train", "train_balanced_10k"])
def test_both_forms_are_read_and_the_part_is_said(tmp_path, train):
    made = write(tmp_path, train)
    data = load(tmp_path, tmp_path / "cache", val_items=4)
    np.testing.assert_array_equal(data.splits["test"].images, made["test"].images)
    np.testing.assert_array_equal(data.splits["test"].labels, made["test"].labels)
    assert len(data.splits["train"].images) == 8 and data.note == "24 of the 60,000 images of CIFAR-100"
    divided = load(tmp_path, tmp_path / "cache", val_items=4, test_share=0.25)
    assert [len(divided.splits[split].images) for split in ("train", "val", "test")] == [14, 4, 6]


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UsageError, match="CIFAR-100 was not found as train-"):
        load(tmp_path, tmp_path / "cache")
    write(tmp_path)
    (tmp_path / "cifar100" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UsageError, match=r"CIFAR-100 in .* is not complete: missing test-\*\.parquet"):
        load(tmp_path, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"names 'fishes', which is no superclass \(did you mean 'fish'\?\)"):
        CIFAR100("", "", {**GROUPS, "aquatic animals": ["aquatic_mammals", "fishes"]})
    with pytest.raises(UsageError, match="has the superclass 'people' 2 times"):
        CIFAR100("", "", {**GROUPS, "reptiles": ["reptiles", "people"]})
    with pytest.raises(UsageError, match=r"data\.balance is groups \(did you mean 'group'"):
        CIFAR100("", "", GROUPS, balance="groups")


def test_the_published_superclasses_are_ours():
    file = next(real_data("cifar100").glob("test-*.parquet"))
    columns = pq.read_table(file, columns=["fine_label", "coarse_label"])
    features = json.loads(columns.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["fine_label"]["names"] == CLASS_NAMES
    assert features["coarse_label"]["names"] == list(SUPERCLASSES)
    supers = np.array(CIFAR100("", "", GROUPS).spec.supers)
    np.testing.assert_array_equal(supers[columns["fine_label"].to_numpy()], columns["coarse_label"].to_numpy())
