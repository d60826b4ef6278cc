"""Where a network is surprised, what its units follow, and whether it quotes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.spec import TextSpec
from datamodules.text.vocabulary import UNKNOWN
from lightning_modules.char_lm.recurrent import RecurrentLM

WORD_PLACES = 10  # letters of a word counted each for itself; those after are one group


def token_class(token: str) -> str:
    """What a character or a word is, in a word or two."""
    if token == "\n":
        return "line end"
    if token == UNKNOWN:
        return "unknown word"
    if token.isspace():
        return "space"
    if len(token) > 1:
        return "word"
    category = unicodedata.category(token)
    if category.startswith("N"):
        return "digit"
    if category.startswith(("L", "M")):
        return {"Ll": "small letter", "Lu": "capital"}.get(category, "letter without case")
    return "punctuation"


def class_means(codes: np.ndarray, nats: np.ndarray, spec: TextSpec) -> dict[str, tuple[float, int]]:
    """For each class of the codes (N,), most frequent first: its mean nats and how many there are."""
    names = np.array([token_class(token) for token in spec.tokens])[codes]
    found = {name: (float(nats[names == name].mean()), int((names == name).sum())) for name in np.unique(names)}
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def word_places(codes: np.ndarray, spec: TextSpec) -> np.ndarray:
    """For each character (N,) its place in its word, 1 for the first letter; 0 for what is no letter.

    Of a word that the stretch cuts in two, what is left of it counts as a word.
    """
    letter = np.array([token[0].isalnum() or unicodedata.category(token[0]).startswith("M") for token in spec.tokens])
    inside = letter[codes]
    numbers = np.arange(len(codes))
    last_outside = np.maximum.accumulate(np.where(inside, -1, numbers))
    return np.where(inside, numbers - last_outside, 0)


def place_means(codes: np.ndarray, nats: np.ndarray, spec: TextSpec) -> dict[str, tuple[float, int]]:
    """Mean nats of a word's first letter, second …, and of the character after a word, with their numbers."""
    places = word_places(codes, spec)
    after = np.flatnonzero((places[1:] == 0) & (places[:-1] > 0)) + 1
    groups = {str(place): places == place for place in range(1, WORD_PLACES)}
    groups[f"{WORD_PLACES}+"] = places >= WORD_PLACES
    rows = {name: (float(nats[chosen].mean()), int(chosen.sum())) for name, chosen in groups.items() if chosen.any()}
    return {**rows, "after": (float(nats[after].mean()), len(after))} if len(after) else rows


def window_means(nats: np.ndarray, window: int) -> np.ndarray:
    """Mean nats (window,) at each place of the whole windows of a stretch; empty if there is none."""
    whole = len(nats) // window
    return nats[: whole * window].reshape(whole, window).mean(0) if whole else np.empty(0)


# Units


def line_features(tokens: Sequence[str]) -> dict[str, np.ndarray]:
    """What a unit might follow, for each token of a text: each an array (N,)."""
    column = np.zeros(len(tokens))
    quoted = np.zeros(len(tokens))
    for number, token in enumerate(tokens):
        previous = tokens[number - 1] if number else "\n"
        column[number] = 0 if previous == "\n" else column[number - 1] + 1
        quoted[number] = quoted[number - 1] != (token == '"') if number else token == '"'
    return {
        "the place in the line": column,
        "a line's end": np.array([token == "\n" for token in tokens], float),
        "the beginning of a line": column < 3,
        "spaces": np.array([token.isspace() for token in tokens], float),
        "capitals": np.array([token.isupper() for token in tokens], float),
        "vowels": np.array([token in "aeiou" for token in tokens], float),
        "quotation": quoted,
    }


@torch.no_grad()
def unit_activations(network: RecurrentLM, codes: np.ndarray) -> np.ndarray:
    """What the last layer's units give (N, hidden) after each code of a text, the state carried."""
    network.eval()
    device = next(network.parameters()).device
    given: Tensor = torch.from_numpy(codes)[None].to(device)
    return network.features(given)[0][0].float().cpu().numpy()


def chosen_units(activations: np.ndarray, features: dict[str, np.ndarray], count: int) -> list[tuple[int, str, float]]:
    """The units (number, feature, correlation) that follow a feature most closely, strongest first, one a feature."""
    centred = activations - activations.mean(0)
    scale = np.sqrt((centred**2).sum(0)) + 1e-12
    found = []
    for name, feature in features.items():
        wanted = np.asarray(feature, float) - np.mean(feature)
        size = np.sqrt((wanted**2).sum())
        if size < 1e-9:
            continue
        correlation = (centred * wanted[:, None]).sum(0) / (scale * size)
        unit = int(np.abs(correlation).argmax())
        found.append((unit, name, float(correlation[unit])))
    chosen: dict[int, tuple[int, str, float]] = {}
    for entry in sorted(found, key=lambda entry: -abs(entry[2])):
        chosen.setdefault(entry[0], entry)
    return list(chosen.values())[:count]


# Quotation


def ngram_keys(codes: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of every run of `length` codes: uint64 (N − length + 1,), equal for equal runs."""
    count = max(0, len(codes) - length + 1)
    keys = np.zeros(count, np.uint64)
    mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    for place in range(length):
        keys = keys * np.uint64(0xD1342543DE82EF95) + mixed[place : place + count]
    return keys


def found_in(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which of the keys stand in a sorted array."""
    if not len(ordered):
        return np.zeros(len(keys), bool)
    return ordered[np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)] == keys


def shared_fractions(
    texts: dict[str, list[np.ndarray]], source: np.ndarray, lengths: Iterable[int]
) -> dict[str, list[float]]:
    """For each named group of texts, which part of their runs of so many codes stands in `source` as it is."""
    fractions: dict[str, list[float]] = {name: [] for name in texts}
    for length in lengths:
        ordered = np.sort(ngram_keys(source, length))
        for name, group in texts.items():
            keys = np.concatenate([ngram_keys(codes, length) for codes in group])
            fractions[name].append(float(found_in(keys, ordered).mean()) if len(keys) else float("nan"))
    return fractions


def longest_shared(texts: Sequence[np.ndarray], source: np.ndarray) -> tuple[int, int, int]:
    """The longest run of any of the texts that stands in `source`: which text, its start there, its length."""

    def places(length: int) -> list[np.ndarray]:
        ordered = np.sort(ngram_keys(source, length))
        return [np.flatnonzero(found_in(ngram_keys(codes, length), ordered)) for codes in texts]

    low, high = 0, max(map(len, texts), default=0)
    while low < high:  # a run that is shared has shared parts, so that lengths can be halved between
        middle = (low + high + 1) // 2
        low, high = (middle, high) if any(map(len, places(middle))) else (low, middle - 1)
    if not low:
        return 0, 0, 0
    number, found = next((number, found) for number, found in enumerate(places(low)) if len(found))
    return number, int(found[0]), low
