"""Files appear whole or not at all under their final names: on a full disk, in two processes at once, after damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import train
from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.images.folder import Images
from reporting.load import read_checkpoint
from running.training.checkpoints import WholeCheckpoints
from tests.commands import train_ended
from tests.conftest import QUICK, REPOSITORY
from tests.forked import Command

SMALL = [*QUICK, "model=pixelcnn", "model.hidden=8", "model.layers=1", "trainer.precision=32-true", "stages=[fit]"]


def hidden_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


# One file


def test_a_file_that_is_not_finished_never_gets_its_name(tmp_path):
    (tmp_path / "figures.json").write_text("before")
    with pytest.raises(KeyError), whole_file(tmp_path / "figures.json") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert (tmp_path / "figures.json").read_text() == "before" and not hidden_files(tmp_path)
    with whole_file(tmp_path / "figures.json") as unfinished:
        unfinished.write_text("after")
        assert (tmp_path / "figures.json").read_text() == "before"
    assert (tmp_path / "figures.json").read_text() == "after" and not hidden_files(tmp_path)


def test_a_file_in_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"cannot be written \((Not a directory|File exists)\)"),
        whole_file(tmp_path / "file/x") as new,
    ):
        new.write_text("")


def test_a_checkpoint_killed_half_way_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": 1}, path)
    write = Path.write_bytes

    def half(self: Path, content: memoryview) -> None:
        write(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UsageError, match=r"last\.ckpt' cannot be written \(No space left on device\): make room"):
        WholeCheckpoints().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1} and not hidden_files(tmp_path)


def test_no_file_of_the_project_is_written_in_place():
    """Every write goes through `whole_file`; these few have their own way to be whole."""
    own_way = {"datamodules/cache.py", "datamodules/text/shakespeare.py", "datamodules/files.py"}
    writes = (".write_text(", ".write_bytes(", "np.save(", "savez", ".savefig(", "torch.save(", 'open("w', '"wb"')
    for folder in ("datamodules", "lightning_modules", "reporting", "running"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if file.relative_to(REPOSITORY).as_posix() not in own_way and any(word in line for word in writes):
                    assert "unfinished" in line or "content" in line, f"{file}:{number}"


# A full disk


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of its own of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_is_whole(small_disk):
    begun = train_ended([*SMALL, "scheduler=constant", "hydra.run.dir=run"], small_disk)
    assert begun == (0, "")
    last = small_disk / "run/checkpoints/last.ckpt"
    before, steps = last.read_bytes(), read_checkpoint(last)["global_step"]
    free = shutil.disk_usage(small_disk).free
    (small_disk / "other").write_bytes(bytes(free - len(before) // 2))  # room for what is small, not for a checkpoint
    ended = train_ended(["ckpt_path=run", "stages=[fit]", "trainer.max_epochs=3"], small_disk)
    assert ended.status == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "cannot be written (No space left on device): make room" in ended.stderr
    assert last.read_bytes() == before and not hidden_files(small_disk / "run")
    (small_disk / "other").unlink()
    assert train_ended(["ckpt_path=run", "stages=[fit]", "trainer.max_epochs=3"], small_disk) == (0, "")
    assert read_checkpoint(last)["global_step"] == 3 * steps


def limited() -> None:
    """train.py where no file may have more bytes than its first word says."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
    train.main()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_checkpoint_larger_than_files_may_be_is_one_sentence(tmp_path):
    done = Command(["30000", *SMALL, "hydra.run.dir=run"], tmp_path, limited).ended()
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "best.ckpt' cannot be written (File too large)" in done.stderr
    assert not list((tmp_path / "run/checkpoints").iterdir()) and not hidden_files(tmp_path / "run")


# The cache


ARRAYS = {"images": np.arange(600, dtype=np.uint8).reshape(50, 12), "labels": np.arange(50)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A cache as it was written."""
    folder = tmp_path_factory.mktemp("kept")
    cached_arrays(folder, "x", {"of": "a test"}, lambda: ARRAYS)
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cache_cut_or_with_one_byte_changed_is_never_used(kept, tmp_path_factory, data):
    folder = Path(shutil.copytree(kept, tmp_path_factory.mktemp("damaged") / "cache"))
    (place,) = (path for path in folder.iterdir() if path.is_dir())
    file = place / data.draw(st.sampled_from(["images.npy", "labels.npy", "manifest.json"]))
    content = bytearray(file.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[where:]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    built = []
    found = cached_arrays(folder, "x", {"of": "a test"}, lambda: built.append(1) or ARRAYS)
    assert built or file.name == "manifest.json"  # of which a blank may change without a meaning
    assert found.keys() == ARRAYS.keys() and all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


PICTURES = ["data=images", "data.size=8", "data.batch_size=2"]


def test_a_damaged_cache_is_built_again_before_a_step_is_trained(pictures, tmp_path):
    words = [*SMALL, *PICTURES, f"data.path={pictures}"]
    assert train_ended([*words, "hydra.run.dir=first"], tmp_path) == (0, "")
    (array,) = (tmp_path / "cache").glob("*/images.npy")
    whole = array.read_bytes()
    array.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    assert train_ended([*words, "hydra.run.dir=second"], tmp_path) == (0, "")
    assert array.read_bytes() == whole
    weights = [read_checkpoint(tmp_path / run / "checkpoints/last.ckpt")["state_dict"] for run in ("first", "second")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "the content of images.npy was altered" in (tmp_path / "second/train.log").read_text()


def prepare_when_told() -> None:
    """Prepares the pictures of its first word as soon as there is a file `go`; says what it has."""
    pictures, me = sys.argv[1:]
    data = Images(pictures, "cache", size=8)
    Path(f"ready{me}").touch()
    while not Path("go").exists():
        time.sleep(0.005)
    data.prepare_data()
    print(json.dumps({name: int(split.images.astype(int).sum()) for name, split in data.splits.items()}))


def test_two_processes_prepare_the_same_data_at_once(pictures, tmp_path):
    children = [Command([str(pictures), me], tmp_path, prepare_when_told) for me in "12"]
    for child, me in zip(children, "12", strict=True):
        child.wait_for(tmp_path / f"ready{me}")
    (tmp_path / "go").touch()
    first, second = (child.ended() for child in children)
    assert first.stdout == second.stdout and not first.stderr + second.stderr
    assert json.loads(first.stdout).keys() == {"train", "val", "test"}
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


# Checkpoints


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_checkpoint_cut_or_with_one_byte_changed_is_named_or_means_the_same(quick_run, tmp_path_factory, data):
    whole = quick_run / "checkpoints/best.ckpt"
    content = bytearray(whole.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if cut := data.draw(st.booleans()):
        del content[where:]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.ckpt"
    path.write_bytes(content)
    try:
        found = read_checkpoint(path)
    except UsageError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    first = read_checkpoint(whole)  # padding between the parts was hit
    assert not cut and found["config"] == first["config"] and found["global_step"] == first["global_step"]
    assert all(torch.equal(found["state_dict"][name], value) for name, value in first["state_dict"].items())
