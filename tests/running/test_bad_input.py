"""Bad commands and bad files: exit status 1, one sentence on stderr that names cause and remedy, nothing left behind.

A row is a command and a part of what it says. All run in this process, through the entry points that `python train.py`
and `python -m …` call, in one folder of good and bad files; `test_command.py` runs a few as real commands.
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
ON = "stages=[test] ckpt_path="

NAMES = [
    ("model=diag_lstm", "There is no model=diag_lstm (did you mean 'diag_bilstm'?): choose one of "),
    ("task=pixelrn", "There is no task=pixelrn (did you mean 'pixelrnn'?)"),
    ("optimizer=adan", "There is no optimizer=adan (did you mean 'adam'?)"),
    (
        "scheduler=cosine",
        "There is no scheduler=cosine: choose one of constant, constant_linear, exponential, inverse, milestones, "
        "one_cycle, poly, warmup_linear, warmup_stable_decay.",
    ),
    ("data=cifar", "There is no data=cifar (did you mean 'cifar10'?)"),
    ("experiment=record", "There is no experiment=record"),
    ("debug=fast", "There is no debug=fast: choose one of quick."),
    ("sweep=depth", "There is no sweep=depth"),
    ("model=null", "Config group override must be a string"),
    ("trainer.max_epoch=3", "There is no option 'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)"),
    ("modle=pixelcnn", "There is no option 'modle' (did you mean 'model'?)"),
    (
        "task=classification model=pixelcnn",
        "model=pixelcnn is no network of task=classification: choose one",
    ),
    ("task=char_lm data=digits", "CharLSTM models text, but the data is an ImageSpec: choose text, e.g. data=pydocs."),
    ("task=pixelrnn data=pydocs", "models images, but the data is a TextSpec"),
    ("task=classification data=photos", "This data has no classes to tell apart: choose data=digits"),
    ("a=b=[", "The command cannot be read"),
    ("--nonsense", "The command cannot be read: unrecognized arguments: --nonsense"),
    ("--config-dir=elsewhere", "--config-dir cannot be used: put your files into "),
    ("model=pixelcnn,row_lstm", "names several values: add -m to run them all"),
    ("-m ckpt_path=a,b", "give one checkpoint"),
    ("-m seed=1,2 model=pixelcnn,nonsense", "There is no model=nonsense"),
    ("~seed", "seed is null, but it must be a whole number"),
    ("~optimizer", "The option 'hydra.runtime.choices.optimizer' is missing"),
]
KINDS = [
    ("model.hidden=wide", "model.hidden is 'wide', but it must be a whole number, such as 48."),
    ("model.hidden=null", "model.hidden is null, but it must be a whole number, such as 48."),
    ("model.hidden=[8,9]", "model.hidden is [8, 9], but it must be a whole number"),
    ("model.hidden=1.5", "model.hidden is 1.5, but it must be a whole number"),
    ("model.residual=3", "model.residual is 3, but it must be true or false, such as true."),
    ("model.output_maps=many", "model.output_maps is 'many', but it must be a whole number, such as null."),
    ("optimizer.lr=fast", "optimizer.lr is 'fast', but it must be a number"),
    ("optimizer.lr=nan", "optimizer.lr is nan, but it must be a number that is finite."),
    ("trainer=3", "Config group override must be a string"),
    ("paths=3", "paths is 3, but it has options of its own: give paths.data=…."),
    ("paths.data=null", "paths.data is null, but it must be a word, such as "),
    ("task=classification task.module.shown_images=3", "task.module.shown_images is 3, but it must be a list"),
    ("published=[3]", "published holds 3, but each entry must have data, figures, source, split."),
    ("task=char_lm data.carry=perhaps", "data.carry is 'perhaps', but it must be true or false, such as null."),
]
STAGES = [
    (
        "stages=[tset]",
        "There is no stage 'tset' in task=pixelrnn: choose from fit, test, sample, complete, report, com",
    ),
    ("stages=fit", "stages is 'fit', but it must be a list, such as stages=[fit]."),
    ("stages=[]", "stages is [], but it must be a list"),
    ("stages=null", "stages is null, but it must be a list"),
    ("stages=[fit,fit]", "stages=[fit,fit] names a stage twice: leave one out."),
    ("stages=[test]", "need a trained network: give ckpt_path=…, or put fit first."),
    ("stages=[test,fit]", "need a trained network"),
    ("task=classification stages=[sample]", "There is no stage 'sample' in task=classification"),
]
TRAINER = [
    ("seed=-1", "seed is -1, but it must be a whole number from 0 to 4294967295."),
    ("data.seed=-1", "data.seed is -1, but it must be a whole number"),
    ("task=char_lm task.module.adapt_lr=[]", "task.module.adapt_lr is []"),
    ("task=char_lm task.module.adapt_lr=[0.1,-1]", "but it must be a number above 0, or several"),
    ("task=char_lm task.module.adapt_lr=fast", "task.module.adapt_lr is 'fast', but it must be a list"),
    ("task=char_lm task.module.adapt_window=0", "task.module.adapt_window is 0, but it must be from 1"),
    ("average=1.0", "average is 1.0, but it must be a number from 0 up to, not including, 1."),
    ("average=yes", "average is 'yes', but it must be a number from 0"),
    ("budget.minutes=0", "budget.minutes is 0, but it must be a number above 0, or null."),
    ("budget.minutes=soon", "budget.minutes is 'soon', but it must be a number above 0, or null."),
    ("budget=5", "budget is 5, but it has options of its own: give budget.minutes=…."),
    ("patience=-1", "patience is -1, but it must be a whole number, 0 or more, or null."),
    ("trainer.max_epochs=0", "trainer.max_epochs is 0, but it must be a whole number above 0."),
    ("trainer.max_steps=0", "trainer.max_steps is 0"),
    ("trainer.limit_train_batches=-1", "trainer.limit_train_batches is -1"),
    ("trainer.limit_test_batches=0", "trainer.limit_test_batches is 0"),
    (
        "trainer.limit_val_batches=0.0001",
        "trainer.limit_val_batches is 0.0001 of 2 batches, less than one: choose more.",
    ),
    ("trainer.val_check_interval=500", "trainer.val_check_interval is 500 batches, but an epoch has 21: choose fewer."),
    ("trainer.val_check_interval=0", "trainer.val_check_interval is 0"),
    ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch is 0"),
    ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps is 0"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val is -1, but it must be a number above 0, or null."),
    ("trainer.deterministic=perhaps", "trainer.deterministic is 'perhaps', but it must be true, false or warn."),
    ("trainer.devices=0", "trainer.devices is 0, but it must be a whole number above 0, auto, or a list"),
    ("trainer.devices=999", "trainer.devices is 999, but this machine has "),
    ("trainer.precision=17", "These trainer settings cannot work: Precision '17' is invalid"),
    ("trainer.accelerator=abacus", "These trainer settings cannot work: You selected an invalid accelerator name"),
    ("trainer.strategy=none", "These trainer settings cannot work: You selected an invalid strategy name"),
    ("+trainer.nonsense=1", "got an unexpected keyword argument 'nonsense'"),
    ("+trainer.logger=false", "trainer.logger is the run's own to set: leave it out."),
]
SIZES = [
    ("model.hidden=0", "model.hidden is 0, but images of 1 channels need at least 1"),
    ("model.hidden=1000000000", "These model settings cannot work: they need more memory than there is"),
    ("model.layers=-1", "model.layers is -1"),
    ("model.layers=1000000000", "model.layers is 1000000000, but it must be a whole number, up to 1000."),
    ("model.first_kernel=4", "model.first_kernel is 4, but a masked kernel needs a centre: choose an odd number."),
    ("model.initial_state=random", "model.initial_state is 'random', but it must be 'learned' or 'zero'."),
    ("model.engine=fast", "model.engine is 'fast', but it must be one of "),
    ("model.dropout=1", "model.dropout is 1, but it must be a probability"),
    ("model.conditional=true data=photos", "model.conditional=true needs labels, and this data has none"),
    ("data.batch_size=0", "data.batch_size is 0, but it must be a whole number of images, 1 or more."),
    ("data.val_items=1437", "data.val_items is 1437, but the training split has 1437 images: choose 1 to 1436."),
    ("data=photos data.size=1000", "data.size is 1000, but it must be a whole number from 1 to 142."),
    ("data=digit_captions data.side=40", "data.side is 40, but it must be a multiple of 16 from 32 to 1024."),
    (
        "data=digit_captions data.objects=[3,3] data.glyph_size=[0.6,0.6]",
        "Scene 0 of train has no room for 3 digits after 200 attempts: choose a smaller data.glyph_size, fewer ",
    ),
    (
        "data=digit_captions data.side=32 data.train_items=9 data.val_items=9 data.test_items=9 data.unseen_items=9",
        "models images, but the data is a CaptionSpec: choose image data",
    ),
    ("task=classification model=resnet model.depth=50", "model.depth is 50, but it must be 10, 18 or 34."),
    ("task.module.temperature=0", "The temperature is 0"),
    ("task.module.samples=0", "task.module.samples is 0, but it must be from 1 to 1000000."),
    ("task.module.label=3", "task.module.label=3 needs a network trained with model.conditional=true."),
    ("optimizer.lr=-1", "These optimizer and scheduler settings cannot work: Invalid learning rate: -1"),
    ("scheduler=warmup_linear scheduler.warmup=1", "scheduler.warmup is 1, but it must be from 0 up to"),
    (
        "scheduler=one_cycle scheduler.pct_start=2",
        "These optimizer and scheduler settings cannot work: Expected float betwe",
    ),
    ("task=classification model.depth=9", "model.depth=9 halves images 4 times, which 8×8 does not allow: choose "),
    ("task=classification model.filters=-2", "model.filters is -2, but it must be 1 or more."),
    ("task=classification task.module.label_smoothing=1", "task.module.label_smoothing is 1"),
    ("task=classification task.module.initialisation=best", "task.module.initialisation is best"),
    ("task=char_lm data.window=0", "data.window is 0, but it must be a whole number, 1 or more."),
    ("task=char_lm data.split=shuffled", "data.split is 'shuffled': choose temporal or random."),
    ("task=char_lm data.split=random data.carry=true", "data.carry=true cannot be; leave it out"),
    ("task=char_lm model.embedding=0", "model.embedding is 0, but it must be a whole number, 1 or more."),
    ("task=char_lm task.module.forget=2", "task.module.forget is 2, but a chance lies between 0 and 1."),
]
GENERATION = [
    ('"Zu sein é"', "'Zu sein é' has 'Z', 'é', which the text this network is trained on does not have."),
    ('"床前明月光"', "which the text this network is trained on does not have."),
    ('""', "prompt is empty: give at least one character."),
]
GENERATION = [(f"stages=[generate] ckpt_path=char_lm|prompt={prompt}", said) for prompt, said in GENERATION] + [
    (f"stages=[generate] ckpt_path=char_lm task.module.{word}", said)
    for word, said in [
        ("temperature=[0.5,0]", "task.module.temperature is 0, but it must be above 0"),
        ("temperature=[]", "task.module.temperature is an empty list"),
        ("top_p=1.5", "task.module.top_p is 1.5"),
        ("top_k=0", "task.module.top_k is 0"),
        ("length=0", "task.module.length is 0"),
    ]
]
FILES = [
    ("data=cifar10 paths.data=nowhere", "CIFAR-10 was not found as train-*.parquet"),
    ("data=cifar10 paths.data=cut_parquet", "train-0.parquet is damaged or not CIFAR-10"),
    ("data=cifar10 paths.data=other_parquet", "train-0.parquet is damaged or not CIFAR-10 ("),
    ("data=cifar10 paths.data=half_batches", "is not complete: missing data_batch_2"),
    (
        "data=mnist data.binarize=none paths.data=cut_idx",
        "train-images-idx3-ubyte.gz is damaged or not MNIST",
    ),
    ("data=mnist data.binarize=none paths.data=nowhere", "MNIST was not found as "),
    ("data=mnist data.binarize=often", "data.binarize is 'often': choose static, dynamic, none."),
    ("data=images", "data=images needs data.path=FOLDER, the folder of pictures."),
    ("data=images data.path=nowhere", "nowhere does not exist: set it to the folder of pictures."),
    ("data=images data.path=text.txt", "text.txt is a file, not a folder"),
    ("data=images data.path=empty", "empty has no pictures: none of its files ends in .png"),
    ("data=images data.path=two_pictures", "two_pictures has 2 readable pictures, but at least 3 are needed"),
    ("data=images data.path=cut_pictures data.max_unreadable=0", "more than 0 pictures cannot be read: 0.png ("),
    ("data=images data.path=two_pictures data.size=[8]", "data.size is [8], but it must be a number of pixels"),
    (
        "data=images data.path=two_pictures paths.cache=text.txt",
        "cannot be written (File exists): set paths.cache=",
    ),
    ("task=char_lm data=text", "data=text needs a file: give data.path=FILE, a UTF-8 text."),
    ("task=char_lm data=text data.path=nowhere.txt", "'nowhere.txt' cannot be read (No such file or directory)"),
    ("task=char_lm data=text data.path=empty", "'empty' is a folder: give data.path=FILE"),
    ("task=char_lm data=text data.path=empty.txt", "empty.txt is empty: give a file with text in it."),
    ("task=char_lm data=text data.path=latin1.txt", "latin1.txt is not UTF-8 text (byte 3 is 0xe9): save it as UTF-8."),
    (
        "task=char_lm data=text data.path=text.txt data.window=999",
        "need a longer text|take a longer text, or a smaller",
    ),
    ("task=char_lm data=shakespeare paths.data=other_shakespeare", "is not Tiny Shakespeare (sha256 "),
]
CHECKPOINTS = [
    (
        "ckpt_path=nowhere.ckpt",
        "There is no checkpoint 'nowhere.ckpt': give a .ckpt file, or a run's folder, as ckpt_path.",
    ),
    ("ckpt_path=empty", "There is no checkpoint 'empty/checkpoints/last.ckpt'"),
    ("ckpt_path=1", "There is no checkpoint '1'"),
    (
        ON + "text.txt",
        "'text.txt' cannot be read as a checkpoint: it is damaged or no checkpoint (BadZipFile); give another.",
    ),
    (ON + "cut.ckpt", "'cut.ckpt' cannot be read as a checkpoint"),
    (ON + "flipped.ckpt", "'flipped.ckpt' cannot be read as a checkpoint"),
    (ON + "foreign.ckpt", "'foreign.ckpt' is no checkpoint of this project: it holds no config and spec."),
    (ON + "other_weights.ckpt", "The weights in 'other_weights.ckpt' are of another network"),
    (ON + "unknown_data.ckpt", "'unknown_data.ckpt' was trained with data=theirs, which this checkout does not have."),
    (
        ON + "pixelrnn task=classification",
        "model=diag_bilstm is no network of task=classification: choose one of cnn, vit, resnet, lenet5, ",
    ),
    (ON + "char_lm task=pixelrnn", "model=char_lstm is no network of task=pixelrnn: choose one of "),
    (ON + "pixelrnn model=row_lstm", "was trained with model=diag_bilstm, and model=row_lstm cannot be put on it"),
    (ON + "pixelrnn model.hidden=7", "are of another network (model.hidden is "),
    (ON + "pixelrnn model.head_gain=4", "are of another network (model.head_gain is 1 there, 4 in this command)"),
    (ON + "pixelrnn data=photos", "was trained on ImageSpec(channels=1"),
    (ON + "char_lm data.path=other.txt", "was trained on text over "),
    ("stages=[sample] ckpt_path=classification", "There is no stage 'sample' in task=classification"),
    (
        "ckpt_path=pixelrnn stages=[fit] optimizer.lr=0.5",
        "cannot go on with optimizer.lr=0.5: its schedule is laid out",
    ),
    ("stages=[fit] hydra.run.dir=pixelrnn", "'pixelrnn' holds a run: give another hydra.run.dir, or go on with"),
    ("hydra.run.dir=text.txt", "'text.txt' cannot be written (File exists): make room or choose"),
    ("hydra.run.dir=text.txt/run", "cannot be written (Not a directory)"),
]
OTHERS = [
    ("reporting.summary", "empty", "There is no run in 'empty': give a folder that `python train.py -m …` wrote."),
    ("reporting.summary", "nowhere", "There is no folder 'nowhere'"),
    ("reporting.summary", "text.txt", "There is no folder 'text.txt'"),
    ("reporting.summary", "pixelrnn char_lm", "Several folders: say where their summary goes, with --to FOLDER."),
    ("reporting.summary", "", "the following arguments are required: folder; --help shows what can be given."),
    ("reporting.compare", "pixelrnn", "One run alone cannot be compared: give the folders of two or more."),
    (
        "reporting.compare",
        "pixelrnn nowhere",
        "'nowhere' holds no config.yaml: give the folder of a run that was tested",
    ),
    ("reporting.compare", "pixelrnn char_lm", "'pixelrnn' is of task=pixelrnn and 'char_lm' of task=char_lm"),
    ("reporting.compare", "pixelrnn damaged_run", "'damaged_run' holds no finished run, or a damaged one"),
    ("reporting.compare", "pixelrnn cut_predictions", "cut_predictions/predictions.npz' is damaged"),
    ("reporting.results", "pixelrnn", "Say under which name to keep the run"),
    ("reporting.results", "nowhere kept", "'nowhere' holds no finished run"),
    ("reporting.results", "pixelrnn ../outside", "'../outside' is no name to keep a run by"),
    ("reporting.results", "pixelrnn kept nothing.png", "'pixelrnn' has no figure 'nothing.png'"),
    ("lightning_modules.char_lm.leakage", "", "Give one folder: python -m lightning_modules.char_lm.leakage"),
    ("lightning_modules.char_lm.leakage", "empty", "'empty' has no finished runs of both splits"),
    ("lightning_modules.char_lm.leakage", "damaged_runs", "holds no finished run, or a damaged one"),
    ("lightning_modules.pixelrnn.receptive_fields", "empty", "There is no checkpoint 'empty/checkpoints/best.ckpt'"),
    ("lightning_modules.pixelrnn.receptive_fields", "cut.ckpt", "'cut.ckpt' cannot be read as a checkpoint"),
    (
        "lightning_modules.pixelrnn.receptive_fields",
        "char_lm",
        "'char_lm' is of task=char_lm: give runs of task=pixelrnn.",
    ),
    (
        "lightning_modules.pixelrnn.receptive_fields",
        "pixelrnn --out text.txt/a.png",
        "text.txt/a.png' cannot be written (File exists)",
    ),
    (
        "benchmarks.data",
        "--filters 0",
        "argument --filters: it is '0', but it must be a whole number from 1 to 1,000,000",
    ),
    ("benchmarks.sampling", "--networks Transformer", "argument --networks: invalid choice: 'Transformer'"),
    ("benchmarks.sampling", "--hidden wide", "argument --hidden: it is 'wide'"),
    ("benchmarks.recurrence", "--device abacus", "argument --device: it is 'abacus', but this machine has cpu"),
    ("benchmarks.step", "--batch -3", "argument --batch: "),
    ("benchmarks.text", "--window 1.5 --nonsense", "argument --window: it is '1.5'"),
]
TABLE = [("train.py", words, said) for group in (NAMES, KINDS, STAGES, TRAINER, SIZES, GENERATION, FILES, CHECKPOINTS)
         for words, said in group] + OTHERS  # fmt: skip


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
