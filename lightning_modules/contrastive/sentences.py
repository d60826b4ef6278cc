"""What is said of images of each class: the sentences whose mean embedding stands for its name."""

from __future__ import annotations

from datamodules.captions.facts import PAIRS, facts_of_one
from datamodules.captions.words import GRAMMARS
from datamodules.errors import UsageError
from datamodules.spec import END, PAD, UNKNOWN, CaptionSpec, ImageSpec, Spec, kind_of, start_word
from lightning_modules.contrastive.definitions import DEFINITIONS

LANGUAGE = "en"
TEMPLATES = (
    "a photo of a {}",
    "a blurry photo of a {}",
    "a small photo of a {}",
    "a close photo of a {}",
    "a photo of one {}",
    "a picture of a {}",
    "there is a {} in the photo",
    "here you see a {}",
)


def described(spec: Spec) -> CaptionSpec:
    """The spec of images with sentences; of plain images with named classes, with the sentences that this task makes.

    Raises:
        UsageError: the classes have no names.
    """
    if not isinstance(spec, (CaptionSpec, ImageSpec)) or len(spec.names) < 2:
        which = "" if isinstance(spec, (CaptionSpec, ImageSpec)) else f", but the data is {kind_of(spec)}"
        raise UsageError(
            f"Two towers compare images with the names of their classes{which}: choose data=digit_names, "
            "data=digit_captions with data.objects=[1,3], data=cifar10 or data=cifar100."
        )
    if isinstance(spec, CaptionSpec):
        return spec
    told = [sentence.split(" ") for name in spec.names for sentence in photo_sentences(name)]
    words = sorted({word for sentence in told for word in sentence})
    vocabulary = (PAD, END, UNKNOWN, start_word(LANGUAGE), *words)
    longest = max(map(len, told)) + 2
    return CaptionSpec(*spec.shape, spec.levels, vocabulary, (LANGUAGE,), longest, spec.names)


def class_sentences(spec: Spec) -> list[list[str]]:
    """Of each class all its sentences: of a digit's name those of one digit, in all four places; of a photograph's the
    templates and the definition."""
    if isinstance(spec, ImageSpec):
        return [photo_sentences(name) for name in spec.names]
    grammar = GRAMMARS[LANGUAGE]
    pairs = {grammar.digit(*pair): pair for pair in PAIRS}
    return [
        [text for fact in facts_of_one(pairs[name]) for text in grammar.sentences(fact)] if name in pairs else [name]
        for name in spec.names
    ]


def photo_sentences(name: str) -> list[str]:
    """The eight templates, and the class's definition where it has one."""
    shown = name.replace("_", " ")
    found = [template.format(shown) for template in TEMPLATES]
    return [*found, f"a {shown} : {DEFINITIONS[name]}"] if name in DEFINITIONS else found
