"""What a dataset is, in the few numbers a network needs: all that passes between data and network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

from datamodules.errors import UsageError


@dataclass(frozen=True)
class ImageSpec:
    """Images (channels, height, width) of integer intensities 0 … levels−1; `classes` is 0 without labels.

    Where classes lie in superclasses and these in groups, `supers` and `groups` (classes,) have those of each class.
    `names` (classes,) are the classes' own, where a network may read them; specs are equal without them.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int = 0
    supers: tuple[int, ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = field(default=(), repr=False, compare=False)  # checkpoints older than it have none

    def __post_init__(self) -> None:
        for name in ("supers", "groups", "names"):  # Hydra and checkpoints make lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def dims(self) -> int:
        """Sub-pixels of one image: the D of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class TextSpec:
    """Text over a vocabulary. Of characters (`unit` "char"): character i of `vocabulary` has code i. Of words ("word"):
    the words of `vocabulary`, which stand between blanks, have the codes 0, 1, 2 …"""

    vocabulary: str
    unit: str = "char"

    @property
    def tokens(self) -> list[str]:
        """The character or word of each code."""
        return list(self.vocabulary) if self.unit == "char" else self.vocabulary.split(" ")

    def __str__(self) -> str:
        shown = "".join(self.tokens[:200]) if self.unit == "char" else " ".join(self.tokens[:20])
        return f"text over {len(self.tokens):,} {self.unit}s ({shown[:60]!r} …)"


PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"  # the first words of every vocabulary of captions


def start_word(language: str) -> str:
    """The word that begins every sentence of a language, "en", and so says which it is."""
    return f"<{language}>"


@dataclass(frozen=True)
class CaptionSpec:
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
        for name in ("vocabulary", "languages", "names"):  # Hydra and checkpoints make lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))
        first = (PAD, END, UNKNOWN, *map(start_word, self.languages))
        if self.vocabulary[: len(first)] != first:
            raise ValueError(f"a vocabulary of captions begins with {' '.join(first)}")

    @property
    def dims(self) -> int:
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

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


@dataclass(frozen=True)
class SeriesSpec:
    """Windows (window, channels) of a series, and the `horizon` values of its `target` channels that follow each.

    Scaling is of the training part alone. It is not compared: a network keeps what it was trained with, and goes on
    using it on other data of the same shape.

    Args:
        channels: the name of each.
        window: steps seen.
        horizon: steps forecast.
        target: the places of the channels that are forecast, in `channels`.
        period: steps of a season, a day of hourly data 24.
        mean, scale: of each channel, in its own units.
        log_variance: of each lead, and in it of each target, the logarithm of the variance of y[t+h] − y[t], scaled.
    """

    channels: tuple[str, ...]
    window: int
    horizon: int
    target: tuple[int, ...]
    period: int
    mean: tuple[float, ...] = field(compare=False, repr=False)
    scale: tuple[float, ...] = field(compare=False, repr=False)
    log_variance: tuple[float, ...] = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("channels", "target", "mean", "scale", "log_variance"):  # Hydra and checkpoints make lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the channels that are forecast."""
        return tuple(self.channels[place] for place in self.target)

    def __str__(self) -> str:
        return (
            f"a series of {len(self.channels)} channel{'s' * (len(self.channels) > 1)} ({', '.join(self.channels)[:60]}"
            f"), {self.window} steps seen, {self.horizon} of {', '.join(self.targets)[:60]} forecast"
        )


@dataclass(frozen=True)
class SketchSpec:
    """Drawings as sequences of pen strokes.

    The longest drawing trained on has `length` − 1 points; its end is one more (the papers' N_max). Offsets are divided
    by `scale`, in the data's own units. `names` are those of the `classes`, 0 where drawings have none.
    """

    length: int
    scale: float
    classes: int = 0
    names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # Hydra and checkpoints make a list of it

    def number(self, name: str) -> int:
        """The number of a class.

        Raises:
            UsageError: there is no such class.
        """
        if name in self.names:
            return self.names.index(name)
        if not self.names:
            raise UsageError(f"There is no class '{name}': this network was trained on drawings without classes.")
        near = get_close_matches(name, self.names, n=3, cutoff=0.5) or self.names[:8]
        raise UsageError(f"This network knows no class '{name}': the nearest it knows are {', '.join(near)}.")


@dataclass(frozen=True)
class SceneSpec:
    """Images as in `ImageSpec`, each with a mask that gives every pixel a class, or with turned boxes around objects.

    Args:
        classes: how many, and the `names` of each; masks and boxes are numbered alike.
        ignore: the mask's value of pixels that nobody labelled, which count nowhere; −1: there are none.
        boxes: the most boxes an image has; 0: masks only.
        background: is class 0 whatever is no object? Masks have one then.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int
    names: tuple[str, ...]
    ignore: int = -1
    boxes: int = field(default=0, compare=False)  # a network for some images' boxes takes more
    background: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # Hydra and checkpoints make a list of it
        if len(self.names) != self.classes:
            raise ValueError(f"{self.classes} classes have {len(self.names)} names")

    @property
    def dims(self) -> int:
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def masks(self) -> bool:
        """Have the images masks? Boxes alone come without a class for what is no object."""
        return self.background or not self.boxes


Spec = ImageSpec | TextSpec | CaptionSpec | SeriesSpec | SketchSpec | SceneSpec
KINDS: dict[str, type] = {
    "images": ImageSpec,
    "text": TextSpec,
    "captions": CaptionSpec,
    "series": SeriesSpec,
    "sketches": SketchSpec,
    "scenes": SceneSpec,
}


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Plain containers only, so that a checkpoint loads with `weights_only=True`."""
    kind = next(name for name, cls in KINDS.items() if isinstance(spec, cls))
    return {"kind": kind, **asdict(spec)}


def spec_from_dict(record: dict[str, Any]) -> Spec:
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)


def require_text(spec: Spec, network: str) -> TextSpec:
    """`spec` itself when it describes text.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, TextSpec):
        raise UsageError(f"{network} models text, but the data is {kind_of(spec)}: choose text, e.g. data=pydocs.")
    return spec


def require_images(spec: Spec, network: str) -> ImageSpec:
    """`spec` itself when it describes images.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, ImageSpec):
        raise UsageError(
            f"{network} models images, but the data is {kind_of(spec)}: choose image data, e.g. data=digits."
        )
    return spec


def require_captions(spec: Spec, network: str) -> CaptionSpec:
    """`spec` itself when it describes images with sentences.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, CaptionSpec):
        raise UsageError(
            f"{network} models images with captions, but the data is {kind_of(spec)}: choose such data, e.g. "
            "data=digit_captions."
        )
    return spec


def require_series(spec: Spec, network: str) -> SeriesSpec:
    """`spec` itself when it describes a series.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, SeriesSpec):
        raise UsageError(f"{network} forecasts series, but the data is {kind_of(spec)}: choose one, e.g. data=waves.")
    return spec


def require_sketches(spec: Spec, network: str) -> SketchSpec:
    """`spec` itself when it describes drawings.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, SketchSpec):
        raise UsageError(
            f"{network} models drawings, but the data is {kind_of(spec)}: choose drawings, e.g. data=doodles."
        )
    return spec


def require_scenes(spec: Spec, network: str) -> SceneSpec:
    """`spec` itself when it describes images with masks or boxes.

    Raises:
        UsageError: it describes something else.
    """
    if not isinstance(spec, SceneSpec):
        raise UsageError(
            f"{network} models scenes, images with masks or boxes, but the data is {kind_of(spec)}: choose such data, "
            "e.g. data=digit_scenes."
        )
    return spec


def require_masks(spec: Spec, network: str) -> SceneSpec:
    """`spec` itself when it describes images with masks.

    Raises:
        UsageError: it describes something else, or images that have boxes only.
    """
    if not require_scenes(spec, network).masks:
        raise UsageError(
            f"{network} learns from masks, but this data has boxes only: choose data with masks, data=camvid or "
            "data=digit_scenes data.background=true."
        )
    return spec


def require_boxes(spec: Spec, network: str) -> SceneSpec:
    """`spec` itself when it describes images with boxes.

    Raises:
        UsageError: it describes something else, or images that have masks only.
    """
    if not require_scenes(spec, network).boxes:
        raise UsageError(
            f"{network} learns from boxes, but this data has masks only: choose data with boxes, e.g. "
            "data=digit_scenes."
        )
    return spec


def kind_of(spec: Spec) -> str:
    """The spec's class with its article, for a sentence."""
    kind = type(spec).__name__
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"
