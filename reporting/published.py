"""Others' figures, as `published:` in conf/ names them, and which runs of ours stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure that somebody published.

    `metric` is as metrics.json names it; `words` the settings that a run of ours must have to stand beside it, as words
    of a command.
    """

    name: str
    data: str
    metric: str
    value: float
    source: str
    words: tuple[str, ...]

    def beside(self, data: str, settings: Mapping[str, Any]) -> bool:
        """Does a run on this data, with these dotted settings, stand beside it?"""
        pairs = (word.split("=", 1) for word in self.words)
        return data == self.data and all(text(settings.get(key)) == value for key, value in pairs)


def published_figures(entries: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """The figures of such entries, each once, in their order.

    An entry has `source`, `data`, `split` and `figures`: name → figure of its `metric`; without one, metric → figure.
    `ours`, if it is there, has the words, for all its figures or name → words.
    """
    found = []
    for entry in entries:
        ours = entry.get("ours") or ""
        for name, value in entry["figures"].items():
            metric = entry.get("metric", name)
            words = ours if isinstance(ours, str) else ours.get(name, "")
            shown = name if "metric" in entry else entry.get("name", "")
            full = f"{entry['split']}/{metric}"
            found.append(Figure(str(shown), entry["data"], full, value, entry["source"], tuple(words.split())))
    return list(dict.fromkeys(found))


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
