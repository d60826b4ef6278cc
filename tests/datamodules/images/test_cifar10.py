"""CIFAR-10 from every form it comes in: made-up files of a few images, and the real ones where ETUDES_DATA has them."""

from __future__ import annotations

import os
import pickle
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules import sources
from datamodules.errors import UsageError
from datamodules.images import cifar10
from datamodules.images.cifar10 import CIFAR10
from datamodules.images.cifar10_files import BATCHES, local_source
from datamodules.images.shared.image import Split
from tests.datamodules.images.cifar10_written import (
    BATCH_ITEMS,
    binary,
    images_table,
    png,
    python3_pickle,
    table,
    write_batches,
    write_binary,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture
def made_up() -> dict[str, list[Split]]:
    """Random images in the five training batches and the one test batch of the published files."""
    rng = np.random.default_rng(1)
    return {
        split: [
            Split(rng.integers(0, 256, (BATCH_ITEMS, 3, 32, 32), np.uint8), rng.integers(0, 10, BATCH_ITEMS))
            for _ in names
        ]
        for split, names in BATCHES.items()
    }


def load(path: Path, cache: Path | None = None, val_items: int = 4) -> dict[str, Split]:
    data = CIFAR10(str(path), str(cache or path / "cache"), val_items=val_items)
    data.prepare_data()
    return data.splits


FORMS = {
    "parquet": ("cifar10", write_parquet),
    "parquet of the Hub's folder": ("cifar10/plain_text", write_parquet),
    "parquet right there": ("", lambda folder, made_up: write_parquet(folder / "plain_text", made_up)),
    "parquet, column image": ("cifar10", lambda folder, made_up: write_parquet(folder, made_up, "image")),
    "Python 2": ("cifar-10-batches-py", write_batches),
    "Python 2, nested": ("cifar10/cifar-10-batches-py", write_batches),
    "Python 3": ("cifar-10-batches-py", partial(write_batches, encode=partial(python3_pickle, protocol=4))),
    "Python 3 as 2": ("cifar-10-batches-py", partial(write_batches, encode=partial(python3_pickle, protocol=2))),
    "binary": ("cifar-10-batches-bin", write_binary),
    "binary, nested": ("cifar10/cifar-10-batches-bin", write_binary),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(tmp_path, made_up, form):
    where, write = FORMS[form]
    write(tmp_path / where, made_up)
    splits = load(tmp_path)
    np.testing.assert_array_equal(splits["test"].images, made_up["test"][0].images)
    np.testing.assert_array_equal(splits["test"].labels, made_up["test"][0].labels)
    images, labels = map(np.concatenate, zip(*made_up["train"], strict=True))
    order = np.random.default_rng(0).permutation(len(images))
    for split, rows in {"val": order[:4], "train": order[4:]}.items():
        np.testing.assert_array_equal(splits[split].images, images[np.sort(rows)])
        np.testing.assert_array_equal(splits[split].labels, labels[np.sort(rows)])
    assert all(split.images.dtype == np.uint8 and split.labels.dtype == np.int64 for split in splits.values())


def test_batches_and_spec(tmp_path, made_up):
    write_binary(tmp_path / "cifar-10-batches-bin", made_up)
    data = CIFAR10(str(tmp_path), str(tmp_path / "cache"), batch_size=5, eval_batch_size=4, val_items=4)
    data.prepare_data()
    assert data.spec.shape == (3, 32, 32) and (data.spec.levels, data.spec.classes) == (256, 10)
    assert len(data.class_names) == 10
    for loader, size in ((data.train_dataloader(), 5), (data.val_dataloader(), 4), (data.test_dataloader(), 4)):
        images, labels = next(iter(loader))
        assert images.shape == (size, 3, 32, 32) and labels.shape == (size,)


def test_parquet_before_batches_before_binary(tmp_path, made_up):
    write_binary(tmp_path / "cifar10" / "cifar-10-batches-bin", made_up)
    assert local_source(tmp_path).key["form"] == "bin"
    write_batches(tmp_path / "cifar-10-batches-py", made_up)
    assert local_source(tmp_path).key["form"] == "py"
    write_parquet(tmp_path / "cifar10" / "plain_text", made_up)
    assert local_source(tmp_path).key["form"] == "parquet"


def test_cache_serves_only_its_own_source(tmp_path, made_up, monkeypatch):
    folder = write_binary(tmp_path / "cifar-10-batches-bin", made_up)
    load(tmp_path)
    monkeypatch.setattr(cifar10, "read_source", lambda *words: pytest.fail("decoded again"))
    first = load(tmp_path)
    monkeypatch.undo()
    (folder / "test_batch.bin").write_bytes(binary(made_up["train"][0]))
    second = load(tmp_path)
    assert not np.array_equal(first["test"].images, second["test"].images)
    np.testing.assert_array_equal(second["test"].images, made_up["train"][0].images)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="CIFAR-10 was not found"):
        load(tmp_path)


class Order:
    """Pickles as the call of a function: what a malicious file does."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", ["mkdir", "eval"])
def test_malicious_pickle_runs_nothing(tmp_path, made_up, function, protocol):
    folder = write_batches(tmp_path / "cifar-10-batches-py", made_up)
    trace = tmp_path / "trace"
    orders = {"mkdir": Order(os.mkdir, str(trace)), "eval": Order(eval, f"__import__('os').mkdir({str(trace)!r})")}
    content = pickle.dumps({"data": orders[function], "labels": [1]}, protocol=protocol)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(UsageError, match=rf"data_batch_3 .*\.{function}, which no batch"):
        load(tmp_path)
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "the file would have run code in an ordinary unpickler"


def test_missing_shard_is_named(tmp_path, made_up):
    folder = write_parquet(tmp_path / "cifar10", made_up)
    (folder / "train-00001-of-00005.parquet").unlink()
    with pytest.raises(UsageError, match=r"not complete: missing train-00001-of-00005\*?\.parquet\.$"):
        load(tmp_path)


def test_missing_split_and_mixed_sets_are_named(tmp_path, made_up):
    folder = write_parquet(tmp_path / "cifar10", made_up)
    pq.write_table(table(made_up["train"][0]), folder / "train-00000-of-00001.parquet")
    with pytest.raises(UsageError, match=r"mixes train files|missing train-"):
        load(tmp_path)
    (folder / "train-00000-of-00001.parquet").unlink()
    (folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UsageError, match=r"missing test-\*\.parquet"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("write", "form", "name"), [(write_batches, "py", "data_batch_4"), (write_binary, "bin", "test_batch.bin")]
)
def test_missing_batch_is_named(tmp_path, made_up, write, form, name):
    folder = write(tmp_path / f"cifar-10-batches-{form}", made_up)
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"cifar-10-batches-{form} is not complete: missing {name}"):
        load(tmp_path)


def refused(path: Path, file: str, reason: str = "") -> None:
    """Loading names the file and what to do in one sentence, and leaves no cache."""
    with pytest.raises(
        UsageError, match=rf"{file} is damaged or not CIFAR-10 \(.*{reason}.*\): fetch it anew"
    ) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert not [folder for folder in (path / "cache").iterdir() if folder.is_dir()]


@pytest.mark.parametrize("keep", [0.0, 0.45, 0.999])
@pytest.mark.parametrize(
    ("where", "write", "name"),
    [
        ("cifar10", write_parquet, "train-00002-of-00005.parquet"),
        ("cifar-10-batches-py", write_batches, "data_batch_2"),
        ("cifar-10-batches-bin", write_binary, "data_batch_5.bin"),
    ],
)
def test_cut_file_is_named(tmp_path, made_up, where, write, name, keep):
    file = write(tmp_path / where, made_up) / name
    os.truncate(file, int(file.stat().st_size * keep))
    refused(tmp_path, name)


def test_images_and_labels_that_are_not_cifar10(tmp_path, made_up):
    folder = write_parquet(tmp_path / "cifar10", made_up)
    file, batch = folder / "test-00000-of-00001.parquet", made_up["test"][0]
    wrong = {
        "not RGB 32×32": table(batch, size=(28, 28)),
        "image 0 is L 32×32": table(batch, mode="L"),
        "row 2 has the label 10, not one of 0 to 9": table(Split(batch.images, np.array([0, 9, 10, 11, 1, 2]))),
        "row 0 has the label -1": table(Split(batch.images, batch.labels * 0 - 1)),
        "img": table(batch, "picture"),
        "label": table(batch).rename_columns(["img", "fine_label"]),
        "its classes are apple": table(batch).replace_schema_metadata(
            {"huggingface": '{"info": {"features": {"label": {"names": ["apple", "bear"]}}}}'}
        ),
        "for 0 labels": table(Split(batch.images[:0], batch.labels[:0])),
        "row 1 holds no whole image": images_table([png(batch.images[0]), b"no picture"]),
        "row 0 holds no whole image": images_table([png(batch.images[0])[:400]]),
        "holds no whole image": images_table([None]),
    }  # fmt: skip
    for reason, content in wrong.items():
        pq.write_table(content, file)
        refused(tmp_path, file.name, reason)


def test_batches_that_are_not_cifar10(tmp_path, made_up):
    folder = write_batches(tmp_path / "cifar-10-batches-py", made_up)
    batch = made_up["test"][0]
    for reason, content in {
        "for 5 labels": {"data": batch.images.reshape(-1, 3072), "labels": batch.labels.tolist()[:5]},
        "labels": {"data": batch.images.reshape(-1, 3072), "fine_labels": batch.labels.tolist()},
        "of float64": {"data": batch.images.reshape(-1, 3072) / 255, "labels": batch.labels.tolist()},
        "": [1, 2, 3],
    }.items():
        (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
        refused(tmp_path, "test_batch", reason)


def assert_not_found(path: Path, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError) as error:
        load(path)
    assert time.monotonic() - start < 10
    sentence = str(error.value)
    for word in (str(path), "parquet", "cifar-10-batches-py", "cifar-10-batches-bin", "uoft-cs/cifar10", f"({reason})"):
        assert word in sentence
    for word in ("paths.data=", "ETUDES_DATA", "data=digits"):
        assert word in sentence
    assert "\n" not in sentence


def test_nothing_found_offline(tmp_path):
    assert_not_found(tmp_path, "offline mode is set")


def test_nothing_found_without_connection(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda endpoint: False)
    assert_not_found(tmp_path / "absent", "no connection")
    assert datasets.config.HF_HUB_OFFLINE is False, "a later try in this process asks again"


def test_from_the_hub(tmp_path, made_up, monkeypatch):
    import datasets

    asked = []

    def load_dataset(name: str) -> datasets.DatasetDict:
        asked.append(name)
        tables = {split: pa.concat_tables(map(table, batches)) for split, batches in made_up.items()}
        return datasets.DatasetDict({split: datasets.Dataset(content) for split, content in tables.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = load(tmp_path)
    write_binary(tmp_path / "local" / "cifar-10-batches-bin", made_up)
    local = load(tmp_path / "local")
    assert asked == ["uoft-cs/cifar10"], "the Hub is not asked where files are"
    for split in local:
        np.testing.assert_array_equal(hub[split].images, local[split].images)
        np.testing.assert_array_equal(hub[split].labels, local[split].labels)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> CIFAR10:
    path = os.environ.get("ETUDES_DATA")
    if not path:
        pytest.skip("ETUDES_DATA is not set")
    if local_source(Path(path)) is None:
        pytest.skip("ETUDES_DATA holds no CIFAR-10")
    data = CIFAR10(path, str(tmp_path_factory.mktemp("cache")))
    data.prepare_data()
    return data


def test_real_counts(real):
    assert {name: len(split.images) for name, split in real.splits.items()} == {
        "train": 45000,
        "val": 5000,
        "test": 10000,
    }
    assert np.bincount(real.splits["test"].labels).tolist() == [1000] * 10
    both = np.bincount(real.splits["train"].labels) + np.bincount(real.splits["val"].labels)
    assert both.tolist() == [5000] * 10


def test_real_validation_is_disjoint_and_fixed(real):
    again = CIFAR10(str(real.path), str(real.cache), seed=real.seed + 1)
    again.prepare_data()
    for split in ("train", "val"):
        np.testing.assert_array_equal(again.splits[split].images, real.splits[split].images)
        np.testing.assert_array_equal(again.splits[split].labels, real.splits[split].labels)
    train, val = ({image.tobytes() for image in real.splits[split].images} for split in ("train", "val"))
    assert not train & val


def test_real_images_are_photographs_in_rgb_planes(real):
    """The well-known means of the 50,000 images, in the order red, green, blue; and neighbours look alike."""
    train, val = (real.splits[split].images for split in ("train", "val"))
    means = (9 * train.mean((0, 2, 3)) + val.mean((0, 2, 3))) / 10 / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=6e-5)
    few = val[:500]
    assert np.corrcoef(few[..., :-1].ravel(), few[..., 1:].ravel())[0, 1] > 0.9
    assert np.corrcoef(few[..., :-1, :].ravel(), few[..., 1:, :].ravel())[0, 1] > 0.9


def test_only_training_images_are_augmented_and_only_on_request(tmp_path, made_up):
    write_binary(tmp_path / "cifar-10-batches-bin", made_up)
    batches = {}
    for flip, padding in (("none", 0), ("random", 2)):
        data = CIFAR10(str(tmp_path), str(tmp_path / "cache"), val_items=4, flip=flip, crop_padding=padding)
        data.prepare_data()
        batches[flip] = {name: next(iter(getattr(data, f"{name}_dataloader")()))[0] for name in data.splits}
    plain, moved = batches.values()
    assert torch.equal(plain["val"], moved["val"]) and torch.equal(plain["test"], moved["test"])
    same = [torch.equal(a, b) for a, b in zip(plain["train"], moved["train"], strict=True)]
    assert len(same) == 26 and sum(same) < 5
