"""Images with sentences."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.errors import UsageError
from datamodules.spec.shared import WithImages, as_tuples, required

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"  # the first words of every vocabulary of captions


def start_word(language: str) -> str:
    """The word that begins every sentence of a language, "en", and so says which it is."""
    return f"<{language}>"


@dataclass(frozen=True)
class CaptionSpec(WithImages):
    """Images as in `ImageSpec`, each with sentences.

    Word i of `vocabulary`, in which all `languages` share one, has code i: first `PAD`, `END` and `UNKNOWN`, then a
    `start_word` for each language. A sentence has at most `length` tokens, start and end counted. `names` are those of
    the classes, where images have one.
    """

    channels: int
    height: int
    width: int
    levels: int
    vocabulary: tuple[str, ...]
    languages: tuple[str, ...]
    length: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        as_tuples(self, "vocabulary", "languages", "names")
        first = (PAD, END, UNKNOWN, *map(start_word, self.languages))
        if self.vocabulary[: len(first)] != first:
            raise ValueError(f"a vocabulary of captions begins with {' '.join(first)}")

    @property
    def codes(self) -> dict[str, int]:
        """The code of each word."""
        return {word: code for code, word in enumerate(self.vocabulary)}

    @property
    def pad(self) -> int:
        return 0

    @property
    def end(self) -> int:
        return 1

    @property
    def unknown(self) -> int:
        return 2

    def start(self, language: str) -> int:
        """The code that begins a sentence.

        Raises:
            UsageError: the sentences are not in this language.
        """
        if language not in self.languages:
            raise UsageError(f"There is no language '{language}' here: choose {' or '.join(self.languages)}.")
        return 3 + self.languages.index(language)

    def __str__(self) -> str:
        return (
            f"captioned images of {self.channels}×{self.height}×{self.width} with {self.levels} levels, "
            f"{len(self.vocabulary)} words ({', '.join(self.languages)}), at most {self.length} a sentence, "
            f"{len(self.names)} classes"
        )


def require_captions(spec: object, network: str) -> CaptionSpec:
    """`spec` itself when it describes images with sentences.

    Raises:
        UsageError: it describes something else.
    """
    need = f"{network} models images with captions"
    return required(spec, CaptionSpec, need, "choose such data, e.g. data=digit_captions")
