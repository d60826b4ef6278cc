"""Others' figures, as `published:` in conf/ names them, and which runs of ours stand beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datamodules.errors import UsageError

# Of these the lowest value is the best, of all others the highest, unless the entry says `mode`.
LOWER = re.compile(r"(^|[/_])(loss|perplexity|bits|nats|error|severity|rmse|mae|mse|crps|distance|fid)($|[/_])")
MODES = {"min": True, "max": False}


@dataclass(frozen=True)
class Figure:
    """One figure that somebody published.

    `name` is the system's; `metric` as metrics.json names it; `words` the settings that a run of ours must have to
    stand beside it, as words of a command, none for what is no run (a bound); `lower`: is a lower value better?;
    `headline`: may it open the page of results?
    """

    name: str
    data: str
    metric: str
    value: float
    source: str
    words: tuple[str, ...]
    lower: bool = False
    headline: bool = field(default=True, compare=False)

    def beside(self, data: str, settings: Mapping[str, Any]) -> bool:
        """Does a run on this data, with these dotted settings, stand beside it?"""
        pairs = (word.split("=", 1) for word in self.words)
        return data == self.data and all(text(settings.get(key)) == value for key, value in pairs)


def published_figures(entries: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The figures of such entries, each once, in their order.

    An entry has `source`, `data`, `split` and `figures`: name → figure of its `metric`; without one, metric → figure.
    A metric with a slash is a full name (`attack/worst/accuracy`), another one is of the split. `name` is the system;
    a figure's own name stands after it. `ours`, if it is there, has the words, for all its figures or name → words;
    `mode` (min or max) says which values are better where the metric's name does not; `headline: false` keeps it out of
    the comparison that opens the page of results.

    Raises:
        UsageError: an entry's figure is no number, a word of `ours` no setting, or its mode neither min nor max.
    """
    return list(dict.fromkeys(figure for entry in entries for figure in entry_figures(entry)))


def entry_figures(entry: Mapping[str, Any]) -> list[Figure]:
    """One entry's figures."""
    found, ours, mode = [], entry.get("ours") or "", entry.get("mode")
    if mode is not None and mode not in MODES:
        raise UsageError(f"published gives mode {mode!r} for {entry['source']!r}: it must be min or max.")
    for name, value in entry["figures"].items():
        metric = str(entry.get("metric", name))
        words = tuple((ours if isinstance(ours, str) else ours.get(name, "")).split())
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"published gives {value!r} for {name} of {entry['source']!r}: it must be a number.")
        if wrong := [word for word in words if "=" not in word]:
            raise UsageError(f"published names {wrong[0]!r} under ours of {entry['source']!r}: write key=value.")
        parts = [entry.get("name"), name if "metric" in entry else None]
        shown = ", ".join(str(part) for part in parts if part) or entry["source"]
        full = metric if "/" in metric else f"{entry['split']}/{metric}"
        lower = MODES[mode] if mode else bool(LOWER.search(full))
        found.append(
            Figure(shown, entry["data"], full, value, entry["source"], words, lower, entry.get("headline", True))
        )
    return found


@dataclass(frozen=True)
class Origin:
    """What brings figures along: the word of a command that chooses it (empty: none does), the settings it makes, its
    figures."""

    word: str
    settings: Mapping[str, Any]
    figures: Sequence[Figure]

    def words(self, figure: Figure) -> list[str]:
        """A command's words for the run that stands beside the figure."""
        wanted = dict(word.split("=", 1) for word in (f"data={figure.data}", *figure.words))
        missing = {key: value for key, value in wanted.items() if text(self.settings.get(key)) != value}
        return [self.word, *(f"{key}={value}" for key, value in missing.items())]


def command_for(figure: Figure, origins: Sequence[Origin]) -> str:
    """The shortest command that runs what stands beside the figure; empty where nothing in conf/ brings it along."""
    found = [origin.words(figure) for origin in origins if origin.word and figure in origin.figures]
    return shlex.join(["python", "train.py", *min(found, key=len)]) if found else ""


def chosen(defaults: Iterable[Any]) -> dict[str, str]:
    """The groups that a file's defaults list chooses: `override /model: cnn` gives model=cnn."""
    pairs = [pair for entry in defaults if isinstance(entry, Mapping) for pair in entry.items()]
    return {key.removeprefix("override /"): value for key, value in pairs if re.fullmatch(r"override /\w+", key)}


def text(value: Any) -> str:
    """A setting's value as a command writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(text(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key's last part, where no other key has the same; what a group calls is named as the group."""
    last = [key.removesuffix("._target_").rsplit(".", 1)[-1] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}
