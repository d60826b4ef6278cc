"""What every text shares: codes, stretches that train, validate and test, their loaders; and a file of one's own."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np

from datamodules.errors import UsageError, did_you_mean
from datamodules.module import SplitDataModule
from datamodules.spec import TextSpec
from datamodules.text.loader import Streams, Stretch, TextLoader, Windows
from datamodules.text.vocabulary import WORD, character_spec, encode, word_spec

TRAIN_UP_TO, VALIDATE_UP_TO = 0.90, 0.95  # of the text
SPLIT_SEED = 0
SCORINGS = ("carried", "reset")


class TextDataModule(SplitDataModule):
    """A text as codes, the first 90 % training, the next 5 % validating, the last 5 % testing.

    A text implements `read_text`. `prepare_data` runs on every process; after it `spec` and `codes` are known.

    Args:
        unit: char, or word: the frequent words of the training stretch, all others one unknown word.
        words: how many words are frequent.
        split: temporal, as above; or random: windows that overlap are pooled from the first 95 % of the text, and one
            in 19 of them (5 of 95), drawn from a fixed seed, validates, so that it shares text with windows that
            train. The last 5 % is the test's in both.
        test_from: where the test stretch begins, 0.95 or 0.90. 0.90 is for comparisons with figures on the last
            tenth: the first half of it validates, all of it tests.
        carry: train on streams of contiguous text whose state is carried from window to window; or on shuffled
            windows, each from a zero state. None: carried with the temporal split; a random one cannot be.
        scoring: how `val/loss` and `test/loss` are taken: carried through the whole stretch, or reset: windows from
            a zero state. The test is scored both ways in any case.
        window: codes of a training window, and of a reset one.
        stride: from one training window's start to the next, without carry; None: half a window.
        batch_size: streams or windows of a training batch, per device.
        eval_batch_size: windows scored at once.
        seed: of the training order; the splits do not depend on it.

    Raises:
        UsageError: a choice is unknown or a size impossible.
    """

    def __init__(
        self,
        unit: str = "char",
        words: int = 10_000,
        split: str = "temporal",
        test_from: float = 0.95,
        carry: bool | None = None,
        scoring: str = "reset",
        window: int = 256,
        stride: int | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed, "windows")
        choose("unit", unit, ("char", "word"))
        choose("split", split, ("temporal", "random"))
        choose("scoring", scoring, SCORINGS)
        choose("test_from", test_from, (VALIDATE_UP_TO, TRAIN_UP_TO))
        stride = max(1, window // 2) if stride is None and isinstance(window, int) else stride
        for name, size in {"window": window, "stride": stride, "words": words}.items():
            if not isinstance(size, int) or size < 1:
                raise UsageError(f"data.{name} is {size!r}, but it must be a whole number, 1 or more.")
        if split == "random":
            for wrong, word in [(carry, "carry=true"), (scoring == "carried", "scoring=carried"),
                                (test_from != VALIDATE_UP_TO, f"test_from={test_from}")]:  # fmt: skip
                if wrong:
                    raise UsageError(
                        f"data.split=random pools windows of the first 95 %, each from a zero state: data.{word} "
                        "cannot be; leave it out, or take data.split=temporal."
                    )
        self.unit, self.words, self.split, self.test_from = unit, words, split, test_from
        self.carry = split == "temporal" if carry is None else carry
        self.scoring, self.window, self.stride = scoring, window, stride
        self.codes = np.empty(0, np.int64)
        self.text = ""
        self._spec: TextSpec | None = None

    @abstractmethod
    def read_text(self) -> str:
        """The whole text."""

    @property
    def title(self) -> str:
        """The text's name in messages."""
        return "the text"

    @property
    def spec(self) -> TextSpec:
        return self._spec

    @property
    def note(self) -> str:
        """How the text is divided, for the log and the report."""
        units = f"{self.unit}s"
        how = {
            "temporal": "the first 90 % trains, the next 5 % validates",
            "random": f"windows of {self.window} pooled from the first 95 % train and validate (overlapping)",
        }[self.split]
        tail = (
            "last 10 % tests, of which the first half validates" if self.test_from == TRAIN_UP_TO else "last 5 % tests"
        )
        return f"{len(self.codes):,} {units}, {len(self.spec.tokens):,} distinct; {how}, the {tail}"

    def prepare_data(self) -> None:
        if self._spec is not None:
            return
        self.text = self.read_text()
        if self.unit == "char":
            self._spec = character_spec(self.text)
        else:
            # Cut at a whole word: the words that train are the first 90 % of the words, not of the characters.
            tokens = [match.end() for match in WORD.finditer(self.text)]
            end = tokens[int(len(tokens) * TRAIN_UP_TO) - 1] if tokens else 0
            self._spec = word_spec(self.text[:end], self.words)
        self.codes = encode(self.text, self._spec)
        self._check_lengths()

    def _check_lengths(self) -> None:
        first, last = self.stretch("train")
        rows = self.batch_size * self.place[1] if self.carry else 1
        if last - first <= rows * self.window:
            least = int((rows * self.window + 1) / TRAIN_UP_TO) + 1
            what = f"{rows} streams of {self.window}" if self.carry else f"a window of {self.window}"
            raise UsageError(
                f"{self.title} has {len(self.codes):,} {self.unit}s, but {what} need {least:,}: take a longer text, "
                f"or a smaller data.window{' or data.batch_size' if self.carry else ''}."
            )

    def stretch(self, split: str) -> tuple[int, int]:
        """First and last (exclusive) code of a split's stretch; of a random split's train and val, the pool's."""
        total = len(self.codes)
        train, val = (int(total * part) for part in (TRAIN_UP_TO, VALIDATE_UP_TO))
        if split == "test":
            return int(total * self.test_from), total
        if self.split == "random":
            return 0, val
        return {"train": (0, train), "val": (train, val)}[split]

    def window_starts(self, split: str) -> np.ndarray:
        """Where the windows of `train` or `val` begin, in order: those that train without carry, and a random val's."""
        first, last = self.stretch(split)
        starts = np.arange(first, last - self.window, self.stride)  # a window's last target lies before `last`
        if self.split == "temporal":
            return starts
        order = np.random.default_rng(SPLIT_SEED).permutation(len(starts))
        held = max(1, round(len(starts) * (VALIDATE_UP_TO - TRAIN_UP_TO) / VALIDATE_UP_TO))
        return np.sort(order[held:] if split == "train" else order[:held]) * self.stride + first

    def train_dataloader(self) -> TextLoader:
        if self.carry:
            first, last = self.stretch("train")
            return Streams(self.codes[first:last], self.batch_size, self.window, self.seed, *self.place)
        return self._windows("train")

    def _windows(self, split: str) -> Windows:
        return Windows(self.codes, self.window_starts(split), self.window, **self.dealt(split))

    def scored(self, split: str, scoring: str) -> Stretch:
        """A split's whole stretch, to be scored carried or reset."""
        return Stretch(self.codes, *self.stretch(split), scoring, self.window, self.eval_batch_size)

    def val_dataloader(self) -> TextLoader:
        if self.split == "random":
            return self._windows("val")
        return self.scored("val", self.scoring)

    def test_dataloader(self) -> dict[str, TextLoader]:
        """Both ways by name, the one that `scoring` names first: its figures are the main ones."""
        names = [self.scoring, *(name for name in SCORINGS if name != self.scoring)]
        return {name: self.scored("test", name) for name in names}


def choose(key: str, value: object, known: tuple) -> None:
    """Raises UsageError unless `value` is one of the known ones."""
    if value not in known:
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        raise UsageError(f"data.{key} is {value!r}{near}: choose {' or '.join(map(str, known))}.")


def decode_utf8(content: bytes, title: str) -> str:
    """Text with line ends of one kind, and no byte-order mark.

    Raises:
        UsageError: it is not UTF-8, or empty.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{title} is not UTF-8 text (byte {error.start:,} is 0x{content[error.start]:02x}): save it as UTF-8."
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UsageError(f"{title} is empty: give a file with text in it.")
    return text


class Text(TextDataModule):
    """`data=text data.path=my.txt`: a UTF-8 text file in any script.

    Args:
        path: the file.
    """

    def __init__(self, path: str | None = None, **how: object):
        super().__init__(**how)
        if path is None:
            raise UsageError("data=text needs a file: give data.path=FILE, a UTF-8 text.")
        self.path = Path(str(path)).expanduser()

    @property
    def title(self) -> str:
        return str(self.path)

    def read_text(self) -> str:
        if self.path.is_dir():
            raise UsageError(f"'{self.path}' is a folder: give data.path=FILE, a UTF-8 text.")
        try:
            return decode_utf8(self.path.read_bytes(), self.title)
        except OSError as error:
            raise UsageError(f"'{self.path}' cannot be read ({error.strerror}): give data.path=FILE.") from error
