"""A summary's figures: the ranking, the metric against each varied key, and every run's curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reporting.figures import plt, save
from reporting.published import text
from reporting.runs import Run, Setting, label_of
from reporting.statistics import half_interval, mean

LINES = 7  # that can be told apart by colour
ROWS = 20  # settings in the ranking
GREY = "0.6"


def words(metric: str) -> str:
    """A metric's name as an axis or a table prints it."""
    return metric.replace("/", " ").replace("bits_per_dim", "bits/dim").replace("_per_", "/").replace("_", " ")


def short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def wrapped(name: str) -> str:
    """A setting's name on two lines, cut only where they do not hold it."""
    return textwrap.fill(name, 48, max_lines=2, placeholder=" …")


def save_ranking(path: Path, settings: Sequence[Setting], metric: str, published: dict[str, float]) -> None:
    """The best settings from the top: seeds as points, mean and 95 % interval; published figures as lines."""
    shown = [setting for setting in settings if setting.values(metric)][:ROWS]
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.38 * len(shown)))
    for row, setting in enumerate(shown):
        values = setting.values(metric)
        spread = half_interval(values) if len(values) > 1 else 0
        axis.errorbar(mean(values), row, xerr=spread, fmt="D", markersize=5, capsize=3, color="C0", zorder=2)
        axis.plot(values, [row] * len(values), "o", markersize=4, color="C1", alpha=0.7, zorder=3)
    for number, (name, value) in enumerate(published.items()):
        axis.axvline(value, color=f"C{number % 8 + 2}", linestyle="--", label=f"{name}: {value:g}")
    axis.set_yticks(range(len(shown)), [wrapped(setting.label) for setting in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    everything = [*published.values(), *(value for setting in shown for value in setting.values(metric))]
    margin = 0.5 * (max(everything) - min(everything)) or 0.01 * abs(everything[0])
    axis.set_xlim(min(everything) - margin, max(everything) + margin)  # the interval of two seeds may be huge
    axis.set_xlabel(words(metric))
    axis.grid(alpha=0.3, axis="x")
    if published:
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.25 - 0.6 / len(shown)))
    save(figure, path)


def save_against(path: Path, key: str, settings: Sequence[Setting], metric: str) -> None:
    """The metric against one varied key: points for seeds, lines through the means of what agrees in the other keys.

    With more than a few such lines: all points in grey, and the mean of them at each value of the key. Beside lines, as
    in an ablation, what varies in other keys only is a grey point.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        others = label_of({other: value for other, value in setting.keys.items() if other != key})
        groups.setdefault(others, []).append(setting)
    places, numeric = positions([setting.keys[key] for setting in settings])
    figure, axis = plt.subplots(figsize=(7, 4))
    lines = {others: group for others, group in groups.items() if len(group) > 1}
    if len(lines) > LINES or not lines:
        draw(axis, settings, key, metric, places, "-" if numeric and len(groups) > 1 else "", "mean", GREY, "C0")
    else:
        for group in groups.values():
            if len(group) == 1:
                draw(axis, group, key, metric, places, "", None, GREY, GREY)
        for number, (others, group) in enumerate(lines.items()):
            colour = f"C{number}"
            draw(axis, group, key, metric, places, "-" if numeric else ":", wrapped(others), colour, colour)
        if len(groups) > 1:
            axis.legend(fontsize="small")
    if numeric and min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 8:
        axis.set_xscale("log")
    names = {place: name for name, place in places.items()}
    axis.set_xticks(list(names), [short(name, 20) for name in names.values()])
    axis.minorticks_off()
    axis.set_xlabel(key)
    axis.set_ylabel(words(metric))
    axis.grid(alpha=0.3)
    save(figure, path)


def positions(values: Sequence[Any]) -> tuple[dict[str, float], bool]:
    """Where each value of a key stands on its axis, by its text; numbers at themselves, others side by side."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return {text(value): float(value) for value in sorted(set(values))}, True
    return {name: float(place) for place, name in enumerate(dict.fromkeys(text(value) for value in values))}, False


def draw(
    axis: plt.Axes,
    settings: Sequence[Setting],
    key: str,
    metric: str,
    places: dict[str, float],
    line: str,
    label: str | None,
    points: str,
    means: str,
) -> None:
    """Points of every seed, and a line (style `line`) through the means at each value of the key."""
    at: dict[float, list[float]] = {}
    for setting in settings:
        at.setdefault(places[text(setting.keys[key])], []).extend(setting.values(metric))
    for place, values in at.items():
        axis.plot([place] * len(values), values, "o", markersize=4, color=points, alpha=0.6)
    middle = sorted((place, mean(values)) for place, values in at.items() if values)
    axis.plot(*zip(*middle, strict=True), f"{line}D" if line else "D", markersize=6, color=means, label=label)


def save_all_curves(path: Path, settings: Sequence[Setting], others: Sequence[Run], metric: str) -> bool:
    """The metric's curve of every run, the best settings in colour; False if no run logged it.

    Args:
        path: the PNG.
        settings: finished runs, best first.
        others: failed and unfinished runs, dashed.
        metric: as metrics.csv names it.
    """
    figure, axis = plt.subplots(figsize=(7, 4.5))
    drawn = False
    for number, setting in enumerate(settings):
        colour = f"C{number}" if number < LINES else GREY
        label = wrapped(setting.label) if number < LINES else None
        for run in setting.runs.values():
            if draw_curve(axis, run.curve(metric), "-", colour, label, 2 if number < LINES else 1):
                drawn, label = True, None
    label = "failed or unfinished"
    for run in others:
        if draw_curve(axis, run.curve(metric), ":", "0.3", label, 2):
            drawn, label = True, None
    if not drawn:
        plt.close(figure)
        return False
    axis.set_xlabel("training steps")
    axis.set_ylabel(words(metric))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.13))
    save(figure, path)
    return True


def draw_curve(
    axis: plt.Axes, points: Sequence[tuple[int, float]], line: str, colour: str, label: str | None, order: int
) -> bool:
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if points:
        style = "o" if len(points) == 1 else line
        axis.plot(*zip(*points, strict=True), style, color=colour, label=label, alpha=0.8, zorder=order)
    return bool(points)
