"""Whatever stands in a configuration or a data file: it works, or one sentence says what is wrong."""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

import train
from datamodules.errors import UsageError
from datamodules.images import mnist
from datamodules.images.cifar10_files import read_binary_batch, read_parquet, read_python_batch
from datamodules.images.folder import Images
from datamodules.sources import damage_named
from datamodules.text.text import Text
from lightning_modules.pixelrnn.codec import read as read_compressed
from reporting.folder import read_run
from reporting.load import read_checkpoint
from reporting.predictions import read_predictions
from running import run as running_run
from running.composed import compose_config, keys_of
from tests.commands import ended
from tests.conftest import SMALLEST, TASKS

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
GROUPS = ("model.", "data.", "optimizer.", "scheduler.", "trainer.", "task.module.", "seed", "patience")
VALUES = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 10**15, -(2**70)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["abc", "''", "null", "true", "[]", "[1,2]", "[null]", "{a: 1}", "nan", "-inf", "'1'"]),
)


@cache
def smallest(task: str) -> list[str]:
    return [f"task={task}", "debug=quick", *SMALLEST[task].words]


@cache
def numeric_keys(task: str) -> list[str]:
    """Every option of a task's own configuration that is a number, or may be one."""
    config = compose_config(smallest(task))
    kinds = (int, float, type(None))
    keys = [key for key in keys_of(config) if key.startswith(GROUPS) and "._" not in key]
    return [key for key in keys if isinstance(OmegaConf.select(config, key), kinds)]


def prepared() -> None:
    """`python train.py` up to its first stage."""
    with mock.patch.object(running_run, "run_stage", side_effect=SystemExit(0)):
        train.main()


def any_value_works_or_is_one_sentence(task: str, data: st.DataObject, folder: Path) -> None:
    key = data.draw(st.sampled_from(numeric_keys(task)))
    word = f"{key}={data.draw(VALUES)}"
    cache = folder.parent / "cache"  # one for all examples: data are made once
    found = ended(prepared, [*smallest(task), word], folder, ETUDES_CACHE=str(cache))
    assert "Traceback" not in found.stderr, found.stderr
    if found.status:
        assert found.status == 1 and found.stderr.count("\n") == 1, found.stderr
        assert not [path for path in folder.rglob("*") if path.is_file()], "nothing may be left behind"


@pytest.mark.parametrize("task", sorted(TASKS))
@settings(max_examples=8, **SLOW)
@given(data=st.data())
def test_any_value_of_any_number_works_or_is_one_sentence(task, data, tmp_path_factory):
    any_value_works_or_is_one_sentence(task, data, tmp_path_factory.mktemp("place"))


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
@settings(max_examples=100, **SLOW)
@given(data=st.data())
def test_many_values_of_any_number_work_or_are_one_sentence(task, data, tmp_path_factory):
    any_value_works_or_is_one_sentence(task, data, tmp_path_factory.mktemp("place"))


# Random bytes, and good files with a part cut out or changed, as data files


def parquet() -> bytes:
    picture, file = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "png")
    pq.write_table(pa.table({"img": [{"bytes": picture.getvalue(), "path": ""}] * 3, "label": [0, 1, 2]}), file)
    return file.getvalue()


def idx() -> bytes:
    return bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in (2, 28, 28)) + bytes(2 * 28 * 28)


def predictions() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, label=np.arange(20))
    return file.getvalue()


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3)).save(file, "png")
    return file.getvalue()


def named(read):
    """A reader as `read_source` calls it."""

    def reading(file: Path) -> None:
        with damage_named(file, "CIFAR-10"):
            read(file)

    return reading


def read_run_config(file: Path) -> None:
    (file.parent / "metrics.json").write_text("{}")
    read_run(file.parent)


def read_run_metrics(file: Path) -> None:
    (file.parent / "config.yaml").write_text("choices: {}\nprovenance: {}\n")
    read_run(file.parent)


def read_text(file: Path) -> None:
    Text(str(file), window=5, batch_size=2).prepare_data()


def read_pictures(file: Path) -> None:
    Images(str(file.parent), str(file.parent / "cache"), 8).prepare_data()


READERS = {
    "cifar10 parquet": ("train-0.parquet", parquet(), named(read_parquet)),
    "cifar10 python": ("data_batch_1", b"\x80\x04}\x94.", named(read_python_batch)),
    "cifar10 binary": ("data_batch_1.bin", bytes(3073), named(read_binary_batch)),
    "mnist idx.gz": ("train-images-idx3-ubyte.gz", gzip.compress(idx()), lambda file: mnist.read_idx(file, 3)),
    "mnist idx": ("train-images-idx3-ubyte", idx(), lambda file: mnist.read_idx(file, 3)),
    "mnist amat": ("train.amat", b"0 1 " * 784, named(lambda file: mnist.read_amat((file, 2)))),
    "text": (
        "my.txt",
        "Zu sein é\n".encode() * 50,
        lambda file: Text(str(file), window=5, batch_size=2).prepare_data(),
    ),
    "pictures": (
        "0.png",
        picture(),
        lambda file: Images(str(file.parent), str(file.parent / "cache"), 8).prepare_data(),
    ),
    "checkpoint": ("best.ckpt", b"PK\x03\x04", read_checkpoint),
    "predictions": ("predictions.npz", predictions(), lambda file: read_predictions(file.parent)),
    "compressed": ("compressed.bin", b"ETUDES1\n\x02\0\0\0{}", read_compressed),
    "config.yaml": ("config.yaml", b"choices: {task: pixelrnn}\nprovenance: {}\n", read_run_config),
    "metrics.json": ("metrics.json", b'{"test/loss": 1.0}', read_run_metrics),
}


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=60, **SLOW)
@given(data=st.data())
def test_any_bytes_as_a_file_are_read_or_are_one_sentence(kind, data, tmp_path_factory):
    name, good, read = READERS[kind]
    content = data.draw(st.one_of(st.binary(max_size=300), damaged(good)))
    file = tmp_path_factory.mktemp("files") / name
    file.write_bytes(content)
    try:
        read(file)
    except UsageError as error:
        said = str(error)
        assert "\n" not in said and str(file.parent) in said, said


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file cut off, with a part taken out, or with a few bytes changed."""
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(good))] * 2)))
    how = draw(st.sampled_from(["cut", "gap", "changed"]))
    if how == "cut":
        return good[:first]
    if how == "gap":
        return good[:first] + good[last:]
    middle = draw(st.binary(max_size=8))
    return good[:first] + middle + good[first + len(middle) :]


@settings(max_examples=40, **SLOW)
@given(
    held=st.recursive(
        st.none() | st.integers() | st.text() | st.just(torch.zeros(2)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
        max_leaves=5,
    ),
    key=st.sampled_from(["config", "spec", "state_dict", "metrics", "loader_place", "seconds", "global_step", None]),
)
def test_anything_inside_a_checkpoint_is_read_or_is_one_sentence(held, key, quick_run, tmp_path_factory):
    whole = read_checkpoint(quick_run / "checkpoints/best.ckpt")
    file = tmp_path_factory.mktemp("files") / "theirs.ckpt"
    torch.save(held if key is None else {**whole, key: held}, file)
    try:
        read_checkpoint(file)
    except UsageError as error:
        assert "\n" not in str(error) and str(file) in str(error)
