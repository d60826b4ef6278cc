"""Flickr8k: photographs with five English sentences each, also in Arabic, or in Persian from one's own file."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from datamodules.cache import cached_arrays
from datamodules.captions.batches import CaptionSplit
from datamodules.captions.data import CaptionData
from datamodules.captions.normalise import normalise
from datamodules.captions.words import encode_sentences
from datamodules.errors import UsageError
from datamodules.sources import hashes
from datamodules.spec import END, PAD, UNKNOWN, CaptionSpec, start_word

VERSION = 1  # of what the cache holds
SPLITS = ("train", "val", "test")
TABLES = ("flickr8k_1000/flickr8k_1000.parquet", "flickr8k_1000.parquet")
FOLDERS = ("flickr8k", "Flickr8k", ".")
TEXT, IMAGES = "Flickr8k_text", ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}


class Photograph(NamedTuple):
    """Its name, the split it belongs to, its file or the file's bytes, and by language its sentences."""

    name: str
    split: str
    image: Path | bytes
    sentences: dict[str, list[str]]


class Flickr8k(CaptionData):
    """`data=flickr8k`: the official splits of all 8,000 images, or of the 1,000 of a table (753, 113, 125).

    Looked for under `path`: the usual folder (`Flickr8k_text/Flickr8k.token.txt`, the three lists of images, and the
    images), or a Parquet table with `image`, `name`, `split`, `captions_en` and `captions_ar`. Sentences are normalised
    and split at blanks; the vocabulary has the words that training sentences of all chosen languages have
    `least_count` times. References are whole, with words that the vocabulary lacks.

    Args:
        path: the folder looked in, `paths.data`.
        cache: the folder for the decoded images, `paths.cache`.
        side: images are made so large (bilinear, not keeping their shape).
        language: en; ar (Arabic, three sentences each, in the table alone); fa (from `captions_fa`); both: en and ar;
            en_fa.
        captions_fa: a file of lines name, tab, sentence.
        least_count: see above.
        shift, scale, light: of training images, see `Moved`.

    Raises:
        UsageError: files are missing or damaged, images of a list have no file, or a sentence is empty.

    Source: Hodosh, Young & Hockenmaier, JAIR 47, 2013; Arabic: ElJundi et al., VISAPP 2020. For research and education.
    """

    choices: ClassVar = {"en": ("en",), "ar": ("ar",), "fa": ("fa",), "both": ("en", "ar"), "en_fa": ("en", "fa")}

    def __init__(
        self,
        path: str,
        cache: str,
        side: int = 112,
        language: str = "en",
        captions_fa: str | None = None,
        least_count: int = 2,
        batch_size: int = 32,
        eval_batch_size: int = 50,
        seed: int = 0,
        shift: float = 0.0,
        scale: float = 0.0,
        light: float = 0.0,
    ):
        super().__init__(cache, language, batch_size, eval_batch_size, seed, shift, scale, light)
        if "fa" in self.languages and captions_fa is None:
            raise UsageError("Persian sentences need data.captions_fa=FILE, with lines of name, tab, sentence.")
        if not isinstance(side, int) or not 32 <= side <= 512 or side % 16:
            raise UsageError(f"data.side is {side!r}, but it must be a multiple of 16 from 32 to 512.")
        if not isinstance(least_count, int) or least_count < 1:
            raise UsageError(f"data.least_count is {least_count!r}, but it must be a whole number, 1 or more.")
        self.path = Path(path).expanduser().absolute()
        self.side, self.least_count = side, least_count
        self.captions_fa = None if captions_fa is None else Path(str(captions_fa)).expanduser()
        self.photographs: dict[str, list[Photograph]] = {}
        self.vocabulary: tuple[str, ...] = ()
        self.length = 0

    @property
    def spec(self) -> CaptionSpec:
        return CaptionSpec(3, self.side, self.side, 256, self.vocabulary, self.languages, self.length)

    @property
    def class_names(self) -> list[str]:
        return []

    @property
    def note(self) -> str:
        counts = ", ".join(f"{len(self.photographs[split]):,} {split}" for split in SPLITS if split in self.photographs)
        texts = {
            split: [
                text
                for own in self.photographs.get(split, [])
                for name in self.languages
                for text in own.sentences[name]
            ]
            for split in SPLITS
        }
        seen, tests = set(texts["train"]), texts["test"]
        return (
            f"Flickr8k, {counts} images at {self.side}×{self.side}; {sum(text in seen for text in tests)} of "
            f"{len(tests):,} test sentences are also training sentences; figures of two languages do not compare"
        )

    def references(self, split: str) -> dict[str, list[list[str]]]:
        """By language, all sentences of each image of a split."""
        return {name: [own.sentences[name] for own in self.photographs[split]] for name in self.languages}

    @property
    def language_words(self) -> dict[str, set[str]]:
        """The words of each language's training sentences."""
        own = self.references("train")
        return {name: {word for texts in own[name] for text in texts for word in text.split(" ")} for name in own}

    def load_splits(self) -> dict[str, CaptionSplit]:
        found, files = self.read()
        self.photographs = {split: [own for own in found if own.split == split] for split in SPLITS}
        if empty := next((split for split in SPLITS if not self.photographs[split]), None):
            raise UsageError(f"No image of the split {empty} has a file and sentences: see data.path and captions_fa.")
        self.vocabulary = self.words_of_training()
        texts = [text for own in found for name in self.languages for text in own.sentences[name]]
        self.length = 2 + max(text.count(" ") + 1 for text in texts)
        key = {"version": VERSION, "side": self.side, "files": hashes(files), "names": [own.name for own in found]}
        arrays = cached_arrays(self.cache, "flickr8k", key, self.decode)
        return {split: self.split_of(split, arrays[split]) for split in SPLITS}

    def words_of_training(self) -> tuple[str, ...]:
        counts: Counter[str] = Counter()
        for texts in self.references("train").values():
            counts.update(word for own in texts for text in own for word in text.split(" "))
        words = sorted(word for word, count in counts.items() if count >= self.least_count)
        return (PAD, END, UNKNOWN, *map(start_word, self.languages), *words)

    def split_of(self, split: str, images: np.ndarray) -> CaptionSplit:
        photographs = self.photographs[split]
        most = max(sum(len(own.sentences[name]) for name in self.languages) for own in photographs)
        codes = np.zeros((len(photographs), most, self.length), np.int16)
        lengths = np.zeros((len(photographs), most), np.int16)
        for row, own in enumerate(photographs):
            parts = [encode_sentences(own.sentences[name], self.spec, name) for name in self.languages]
            count = sum(len(part[1]) for part in parts)
            codes[row, :count] = np.concatenate([part[0] for part in parts])
            lengths[row, :count] = np.concatenate([part[1] for part in parts])
        unknown = np.full((len(photographs), 9), -1)
        return CaptionSplit(images, codes, lengths, unknown, np.arange(len(photographs)), unknown[:, 0])

    # Files

    def read(self) -> tuple[list[Photograph], list[Path]]:
        """What is there, and the files that say so."""
        table = next((self.path / name for name in TABLES if (self.path / name).is_file()), None)
        whole = next((self.path / name for name in FOLDERS if (self.path / name / TEXT).is_dir()), None)
        if whole is None and table is None:
            raise UsageError(
                f"Flickr8k is not there: neither a folder with {TEXT} nor {TABLES[0]} in '{self.path}'. Put it "
                "there, or choose data=digit_captions, which needs no download."
            )
        found, files = self.read_folder(whole) if whole is not None else read_table(table)
        if self.captions_fa is not None:
            add_captions(found, "fa", read_captions(self.captions_fa), self.captions_fa)
        kept = [own for own in found if all(own.sentences.get(name) for name in self.languages)]
        if not kept:
            raise UsageError(f"No image has sentences in {' and '.join(self.languages)}: choose another data.language.")
        for own in kept:
            for name in self.languages:
                own.sentences[name] = [normalise(text, name) for text in own.sentences[name]]
                if not all(own.sentences[name]):
                    raise UsageError(f"A sentence of '{own.name}' ({name}) is empty: take it out or write one.")
        return kept, files

    def read_folder(self, folder: Path) -> tuple[list[Photograph], list[Path]]:
        text, images = folder / TEXT, next((folder / name for name in IMAGES if (folder / name).is_dir()), None)
        if images is None:
            raise UsageError(f"'{folder}' has no folder of images: one of {', '.join(IMAGES)}.")
        files = [text / "Flickr8k.token.txt", *(text / name for name in LISTS.values())]
        if missing := [file.name for file in files if not file.is_file()]:
            raise UsageError(f"'{text}' lacks {', '.join(missing)}.")
        captions = read_captions(files[0])
        found = []
        for split, name in LISTS.items():
            for image in read_text(text / name).split():
                found.append(Photograph(image, split, images / image, {"en": captions.get(image, [])}))
        if missing := [own.name for own in found if not own.image.is_file()]:
            raise UsageError(
                f"{len(missing)} images of the lists are not in '{images}', first {', '.join(missing[:3])}."
            )
        return found, files

    def decode(self) -> dict[str, np.ndarray]:
        return {split: np.stack([self.pixels(own) for own in self.photographs[split]]) for split in SPLITS}

    def pixels(self, photograph: Photograph) -> np.ndarray:
        source = photograph.image if isinstance(photograph.image, Path) else io.BytesIO(photograph.image)
        try:
            with Image.open(source) as image:
                small = image.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"The image '{photograph.name}' cannot be read: replace it.") from error
        return np.asarray(small).transpose(2, 0, 1)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        UsageError: it is not there, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: give a file of lines with name, tab, sentence.") from error


def read_captions(path: Path) -> dict[str, list[str]]:
    """Name → sentences of a file of lines name, perhaps #number, tab, sentence."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, tab, sentence = line.partition("\t")
        if not tab or not sentence.strip():
            raise UsageError(f"Line {number} of '{path}' has no sentence: it must be a name, a tab, a sentence.")
        found.setdefault(name.split("#")[0].strip(), []).append(sentence.strip())
    return found


def add_captions(photographs: Sequence[Photograph], language: str, captions: dict[str, list[str]], path: Path) -> None:
    """Puts sentences to their photographs.

    Raises:
        UsageError: images are named that are not there, or none is.
    """
    known = {own.name: own for own in photographs}
    missing = [name for name in captions if name not in known]
    if missing:
        left = "none is left" if len(missing) == len(captions) else f"first {', '.join(missing[:3])}"
        raise UsageError(f"'{path}' names {len(missing)} images that are not there, {left}: take these lines out.")
    for name, sentences in captions.items():
        known[name].sentences[language] = sentences


def read_table(path: Path) -> tuple[list[Photograph], list[Path]]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        found = [
            Photograph(
                row["name"], row["split"], row["image"]["bytes"], {"en": row["captions_en"], "ar": row["captions_ar"]}
            )
            for row in rows
            if row["split"] in SPLITS
        ]
    except (ArrowException, OSError, KeyError, TypeError) as error:
        raise UsageError(f"'{path}' is no table of Flickr8k, or is damaged: copy it again.") from error
    return found, [path]
