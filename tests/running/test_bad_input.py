"""Bad commands and bad files: exit status 1, one sentence on stderr that names cause and remedy, nothing left behind.

A row of `bad_words.py` is a command and a part of what it says. All run in this process, through the entry points that
`python train.py` and `python -m …` call, in one folder of good and bad files; `test_command.py` runs a few as real
commands.
"""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import train
from benchmarks import data, recurrence, sampling, step, text
from datamodules.tools import run_tool
from lightning_modules.char_lm import leakage
from lightning_modules.pixelrnn import receptive_fields
from reporting import compare
from reporting.folder import CONF, leaves
from reporting.load import read_checkpoint
from reporting.results import __main__ as results
from reporting.summary import __main__ as summary
from running.check import check_command
from running.limits import NULL_KINDS
from tests.commands import Ended, ended
from tests.conftest import SMALLEST, TASKS, run_here
from tests.running.bad_words import TABLE

TOOLS: dict[str, Callable[[], object]] = {
    "train.py": train.main,
    "reporting.compare": partial(run_tool, compare.main),
    "reporting.summary": partial(run_tool, summary.main),
    "reporting.results": partial(run_tool, results.main),
    "lightning_modules.char_lm.leakage": partial(run_tool, leakage.main),
    "lightning_modules.pixelrnn.receptive_fields": partial(run_tool, receptive_fields.main),
    "benchmarks.data": data.main,
    "benchmarks.recurrence": recurrence.main,
    "benchmarks.sampling": sampling.main,
    "benchmarks.step": step.main,
    "benchmarks.text": text.main,
}
TEXT = "To be, or not to be, that is the question:\n" * 20


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a run of each task, and bad files of every kind."""
    place = tmp_path_factory.mktemp("place")
    (place / "text.txt").write_text(TEXT)
    for task in TASKS.keys() & {"pixelrnn", "classification", "char_lm"}:
        words = [f"task={task}", "debug=quick", *SMALLEST[task].words, "trainer.precision=32-true", "stages=[fit,test]"]
        if task == "char_lm":
            words += ["data=text", f"data.path={place / 'text.txt'}", "data.batch_size=2"]
        run_here(words, place / task)
        (place / task / "train.log").touch()
    make_checkpoints(place)
    make_data(place)
    for name in ("damaged_run", "cut_predictions"):
        shutil.copytree(place / "pixelrnn", place / name)
    (place / "damaged_run/config.yaml").write_text("a: [")
    (place / "cut_predictions/predictions.npz").write_bytes((place / "pixelrnn/predictions.npz").read_bytes()[:200])
    (place / "damaged_runs/0").mkdir(parents=True)
    (place / "damaged_runs/0/metrics.json").write_text("{")
    return place


def make_checkpoints(place: Path) -> None:
    whole = place / "pixelrnn/checkpoints/best.ckpt"
    content = whole.read_bytes()
    (place / "cut.ckpt").write_bytes(content[: len(content) // 2])
    with ZipFile(whole) as archive:  # between its members lies padding, which may hold anything
        largest = archive.read(max(archive.infolist(), key=lambda member: member.file_size))
    middle = content.index(largest) + len(largest) // 2
    (place / "flipped.ckpt").write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    torch.save({"state_dict": {}}, place / "foreign.ckpt")
    other = read_checkpoint(place / "classification/checkpoints/best.ckpt")["state_dict"]
    torch.save({**read_checkpoint(whole), "state_dict": other}, place / "other_weights.ckpt")
    changed = read_checkpoint(whole)
    changed["config"]["choices"]["data"] = "theirs"
    torch.save(changed, place / "unknown_data.ckpt")


def make_data(place: Path) -> None:
    (place / "other.txt").write_text("Quite another text. " * 50)
    (place / "empty.txt").write_text(" \n")
    (place / "latin1.txt").write_bytes("caf\xe9 é".encode("latin1") * 40)
    for name in ("empty", "cut_parquet", "other_parquet", "half_batches/cifar-10-batches-py", "cut_idx", "two_pictures",
                 "cut_pictures", "other_shakespeare/tiny_shakespeare"):  # fmt: skip
        (place / name).mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(pa.table({"label": [1, 2], "words": ["a", "b"]}), place / f"other_parquet/{split}-0.parquet")
        content = (place / f"other_parquet/{split}-0.parquet").read_bytes()
        (place / f"cut_parquet/{split}-0.parquet").write_bytes(content[: len(content) // 2])
    for name in ("data_batch_1", "test_batch"):
        (place / "half_batches/cifar-10-batches-py" / name).write_bytes(b"")
    for start in ("train", "t10k"):
        for name, dims in (("images-idx3", (5, 28, 28)), ("labels-idx1", (5,))):
            head = bytes((0, 0, 8, len(dims))) + b"".join(size.to_bytes(4, "big") for size in dims)
            packed = gzip.compress(head + bytes(int(np.prod(dims))))
            (place / f"cut_idx/{start}-{name}-ubyte.gz").write_bytes(packed[:-9])
    for number in range(2):
        Image.new("RGB", (9, 9)).save(place / f"two_pictures/{number}.png")
        picture = (place / f"two_pictures/{number}.png").read_bytes()
        (place / f"cut_pictures/{number}.png").write_bytes(picture[: len(picture) // 2])
    (place / "other_shakespeare/tiny_shakespeare/input.txt").write_text(TEXT)


def listing(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if "cache" not in path.parts}


def words_of(line: str) -> list[str]:
    """A line's words; what follows `|` is one word, blanks and all."""
    words, *last = line.split("|")
    return [*words.split(), *last]


@pytest.mark.parametrize(("tool", "line", "said"), TABLE, ids=[f"{tool} {line}"[:90] for tool, line, _ in TABLE])
def test_bad_input_is_one_sentence(tool, line, said, place):
    before, started = listing(place), time.process_time()
    found = ended(TOOLS[tool], words_of(line), place)
    assert_one_sentence(found)
    assert any(part in found.stderr for part in said.split("|")), found.stderr
    assert listing(place) == before, "nothing may be left behind"
    assert time.process_time() - started < 10


def assert_one_sentence(found: Ended) -> None:
    assert found.status == 1 and "Traceback" not in found.stderr, found.stderr
    assert found.stderr.count("\n") == 1 and found.stderr.endswith((".\n", "…\n", "]\n", "html\n")), found.stderr


def test_the_table_is_long_and_says_each_thing_once():
    assert len({(tool, line) for tool, line, _ in TABLE}) == len(TABLE) >= 60


def test_a_bad_run_beside_a_good_one_is_left_where_it_is(place):
    """`leave_clean` takes away what a refused command made, not what was there."""
    (place / "mine").mkdir()
    (place / "mine/notes.txt").touch()
    assert ended(train.main, ["model.first_kernel=4", "hydra.run.dir=mine/run"], place).status == 1
    assert [path.name for path in (place / "mine").iterdir()] == ["notes.txt"]
    shutil.rmtree(place / "mine")


def test_a_damaged_run_does_not_keep_a_summary_from_the_others(place):
    with mock.patch.object(summary, "outline", lambda _: ""):
        assert ended(TOOLS["reporting.summary"], ["pixelrnn", "damaged_run", "--to", "cache/all"], place) == (0, "")


def test_every_option_whose_default_is_null_has_a_kind():
    """Or a word in its place is refused by whatever stumbles over it."""
    own_check = {
        "ckpt_path",
        "patience",
        "prompt",
        "model.layers",
        "data.path",
        "trainer.gradient_clip_val",
        "model.weights",
        "model.quick_gelu",
        "data.normal",
        "data.classes",
        "data.names",
        "data.target",
    }
    for task in TASKS:
        for group in ("model", "data"):
            for file in (CONF / group).glob("*.yaml"):
                config = OmegaConf.load(file)
                keys = {f"{group}.{key}" for key, value in leaves(OmegaConf.to_container(config)) if value is None}
                assert keys <= NULL_KINDS.keys() | own_check, file
        modules = [OmegaConf.load(CONF / "task" / f"{task}.yaml").task.get("module") or OmegaConf.create()]
        for module in [*modules, *map(OmegaConf.load, (CONF / "task_module").glob("*.yaml"))]:
            null = {f"task.module.{key}" for key, value in OmegaConf.to_container(module).items() if value is None}
            assert null <= NULL_KINDS.keys()


def test_good_words_pass():
    for line in ("model.output_maps=null model.layers=null", "trainer.limit_train_batches=0.5 debug=quick",
                 "patience=null trainer.devices=auto", "task=char_lm data.stride=3 task.module.top_p=1"):  # fmt: skip
        assert check_command(line.split()) == []
