"""The cache of arrays: what is written is what is read, in one process or two, or it is built again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules import cache
from datamodules.cache import cached_arrays, file_sha256
from datamodules.errors import UsageError

ARRAYS = {"images": np.arange(600, dtype=np.uint8).reshape(50, 12), "labels": np.arange(50)}
KEY = {"form": "test", "files": {"a": "1", "b": "2"}}
ROOT = Path(__file__).parents[2]


class Builder:
    """Makes ARRAYS and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return ARRAYS


def assert_arrays(found: dict[str, np.ndarray]) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def python(code: str, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def the_folder(parent: Path) -> Path:
    (folder,) = (path for path in parent.iterdir() if path.is_dir())
    return folder


def test_built_once_then_mapped(tmp_path):
    build = Builder()
    for _ in range(3):
        assert_arrays(found := cached_arrays(tmp_path / "new" / "folder", "x", KEY, build))
    assert build.calls == 1
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in found.values())


def test_layout_on_disk(tmp_path):
    cached_arrays(tmp_path, "x", KEY, Builder())
    folder = the_folder(tmp_path)
    assert folder.name.startswith("x-") and len(folder.name) == len("x-") + 16
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["key"] == KEY
    assert manifest["files"].keys() == {"images.npy", "labels.npy"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": file_sha256(folder / name), "bytes": (folder / name).stat().st_size}


def test_key_decides(tmp_path):
    build = Builder()
    cached_arrays(tmp_path, "x", KEY, build)
    cached_arrays(tmp_path, "x", dict(reversed(KEY.items())), build)
    assert build.calls == 1, "the order of a key's entries means nothing"
    cached_arrays(tmp_path, "x", {**KEY, "files": {"a": "1", "b": "3"}}, build)
    assert build.calls == 2


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def drop_entry(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["labels.npy"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "cut": ("images.npy", lambda folder: os.truncate(folder / "images.npy", 300)),
    "empty": ("images.npy", lambda folder: os.truncate(folder / "images.npy", 0)),
    "last byte flipped": ("labels.npy", lambda folder: flip(folder / "labels.npy", -1)),
    "header flipped": ("images.npy", lambda folder: flip(folder / "images.npy", 20)),
    "array missing": ("labels.npy", lambda folder: (folder / "labels.npy").unlink()),
    "manifest missing": ("manifest.json", lambda folder: (folder / "manifest.json").unlink()),
    "manifest cut": ("manifest.json", lambda folder: os.truncate(folder / "manifest.json", 40)),
    "manifest of another key": ("manifest.json", lambda folder: flip(folder / "manifest.json", 22)),
    "manifest without an array": ("labels.npy", drop_entry),
    "manifest of another shape": ("manifest.json", lambda folder: (folder / "manifest.json").write_text("[1]")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_mended(tmp_path, caplog, damage):
    build = Builder()
    cached_arrays(tmp_path, "x", KEY, build)
    file, spoil = DAMAGE[damage]
    spoil(the_folder(tmp_path))
    with caplog.at_level("WARNING"):
        assert_arrays(cached_arrays(tmp_path, "x", KEY, build))
    assert build.calls == 2
    (record,) = caplog.records
    assert file in record.getMessage() and str(the_folder(tmp_path)) in record.getMessage()
    assert_arrays(cached_arrays(tmp_path, "x", KEY, build))
    assert build.calls == 2, "mended for good"


def test_every_flipped_byte_of_the_manifest_is_harmless(tmp_path):
    build = Builder()
    cached_arrays(tmp_path, "x", KEY, build)
    manifest = the_folder(tmp_path) / "manifest.json"
    for place in range(manifest.stat().st_size):
        flip(manifest, place)
        assert_arrays(cached_arrays(tmp_path, "x", KEY, build))


def test_whole_cache_on_a_read_only_disk_serves(tmp_path, monkeypatch):
    cached_arrays(tmp_path, "x", KEY, Builder())

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(cache, "FileLock", refuse)
    build = Builder()
    assert_arrays(cached_arrays(tmp_path, "x", KEY, build))
    assert build.calls == 0
    with pytest.raises(UsageError, match=r"Permission denied.*paths\.cache="):
        cached_arrays(tmp_path, "y", KEY, build)


TWO_AT_ONCE = """
import sys, time
from pathlib import Path
import numpy as np
from datamodules.cache import cached_arrays
folder, me = Path(sys.argv[1]), sys.argv[2]
def build():
    with open(folder / "builds", "a") as file:
        file.write(me)
    time.sleep(1)
    return {"numbers": np.arange(1000)}
(folder / f"ready{me}").touch()
deadline = time.monotonic() + 30
while not (folder / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.005)
print(cached_arrays(folder / "cache", "x", {}, build)["numbers"].sum())
"""


def test_two_processes_at_once(tmp_path):
    children = [python(TWO_AT_ONCE, tmp_path, number) for number in range(2)]
    while not all((tmp_path / f"ready{number}").exists() for number in range(2)):
        assert all(child.poll() is None for child in children), children[0].communicate()
    (tmp_path / "go").touch()
    for child in children:
        output, errors = child.communicate(timeout=60)
        assert (output, errors) == ("499500\n", "")
    assert len((tmp_path / "builds").read_text()) == 1, "one builds, the other waits"


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from datamodules import cache
save = np.save
def save_one_and_die(file, array, **options):
    if file.name == "b.npy":
        os.kill(os.getpid(), signal.SIGKILL)
    save(file, array, **options)
cache.np.save = save_one_and_die
cache.cached_arrays(Path(sys.argv[1]), "x", {}, lambda: {"a": np.arange(9), "b": np.arange(9)})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_build_leaves_nothing_for_good(tmp_path):
    child = python(KILLED, tmp_path)
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert [path.name for path in the_folder(tmp_path).iterdir()] == ["a.npy"], "it died half-way"
    found = cached_arrays(tmp_path, "x", {}, lambda: {"b": np.arange(3)})
    assert found.keys() == {"b"}
    assert {path.name for path in the_folder(tmp_path).iterdir()} == {"b.npy", "manifest.json"}


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    cached_arrays(Path(sys.argv[1]), "x", {}, lambda: {"a": np.zeros(10), "b": np.zeros(100_000)})
except UsageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_file_that_cannot_be_written_in_full(tmp_path):
    output, errors = python(FULL_DISK, tmp_path).communicate(timeout=60)
    assert errors == ""
    assert str(tmp_path) in output and "the disk may be full" in output and "paths.cache=" in output
    assert output.count("\n") == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"], "nothing half-written is left"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written \(.+\): set paths\.cache="):
        cached_arrays(tmp_path / "file" / "cache", "x", KEY, Builder())


def test_what_build_raises_passes_through(tmp_path):
    def build() -> dict[str, np.ndarray]:
        raise OSError("the source's own trouble")

    with pytest.raises(OSError, match="the source's own trouble"):
        cached_arrays(tmp_path, "x", KEY, build)
    assert_arrays(cached_arrays(tmp_path, "x", KEY, Builder()))
