"""A summary's figures: the ranking, the metric against each varied key, and every run's curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from reporting.figures import plt, save
from reporting.published import text
from reporting.runs import Run, Setting, label_of
from reporting.statistics import half_interval, mean

LINES = 7  # that can be told apart by colour
ROWS = 20  # settings in the ranking
GREY = "0.6"
BESIDE = 0.09  # between groups at one choice
UNEVEN = 10.0  # gaps that differ more are not drawn to scale


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
    """The metric against one varied key: points for seeds, diamonds for means with their 95 % intervals, in one colour
    what agrees in the other keys; of a numeric key a line through the means, of a choice (a model, an optimizer) none.

    With more than a few such groups: all points in grey, and the mean of them at each value of the key. Beside groups,
    as in an ablation, what varies in other keys only is a grey point.
    """
    axis_of = Places([setting.keys[key] for setting in settings])
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        others = label_of({other: value for other, value in setting.keys.items() if other != key})
        groups.setdefault(others, []).append(setting)
    lines = {others: group for others, group in groups.items() if len(group) > 1}
    line = "-" if axis_of.numeric else ""
    figure, axis = plt.subplots(figsize=(7, 4))
    if len(lines) > LINES or not lines:
        draw(
            axis, points_at(settings, key, metric, axis_of), Style(line if len(groups) > 1 else "", GREY, "C0", "mean")
        )
    else:
        for group in groups.values():
            if len(group) == 1:
                draw(axis, points_at(group, key, metric, axis_of), Style("", GREY, GREY, None))
        for number, (others, group) in enumerate(lines.items()):
            aside = 0.0 if axis_of.numeric else BESIDE * (number - (len(lines) - 1) / 2)
            seeds = aside if axis_of.numeric else aside + BESIDE / 2
            style = Style(line, f"C{number}", f"C{number}", wrapped(others), True, aside, seeds)
            draw(axis, points_at(group, key, metric, axis_of), style)
        if len(groups) > 1:
            axis.legend(fontsize="small")
    axis_of.apply(axis, key)
    show_all(axis, [value for setting in settings for value in setting.values(metric)])
    axis.set_ylabel(words(metric))
    axis.grid(alpha=0.3)
    save(figure, path)


class Places:
    """Where each value of a key stands on its axis: a number at itself, on the scale on which the numbers stand more
    evenly; one after the other where they do on neither; choices side by side."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        known = {text(value): value for value in (sorted(values) if self.numeric else values)}
        self.names, numbers = list(known), [float(value) for value in known.values()] if self.numeric else []
        self.scale = scale_of(numbers) if self.numeric else "one by one"
        to_scale = self.scale != "one by one"
        self.places = dict(zip(known, numbers if to_scale else map(float, range(len(known))), strict=True))

    def apply(self, axis: plt.Axes, key: str) -> None:
        """Scale, ticks and name of the axis."""
        if self.scale == "log":
            axis.set_xscale("log")
        elif not self.numeric:
            axis.set_xlim(-0.5, len(self.names) - 0.5)
        axis.set_xticks(list(self.places.values()), [short(name, 20) for name in self.names])
        axis.minorticks_off()
        axis.set_xlabel(f"{key} (not to scale)" if self.numeric and self.scale == "one by one" else key)


def scale_of(numbers: Sequence[float]) -> str:
    """`linear` or `log`, on which these increasing numbers stand more evenly; `one by one` where on neither."""
    steps = uneven(numbers)
    ratios = uneven([math.log(number) for number in numbers]) if numbers[0] > 0 else math.inf
    if len(numbers) == 2:
        return "log" if numbers[0] > 0 and numbers[1] / numbers[0] >= 8 else "linear"
    if min(steps, ratios) > UNEVEN:
        return "one by one"
    return "log" if ratios < steps else "linear"


def uneven(numbers: Sequence[float]) -> float:
    """The largest gap between neighbours over the smallest."""
    gaps = [after - before for before, after in pairwise(numbers)]
    return max(gaps) / min(gaps) if gaps else 1.0


class Style(NamedTuple):
    """How one group is drawn: its line's style, colours of points and of means, label, how far beside its place its
    means and its seeds stand."""

    line: str
    points: str
    means: str
    label: str | None
    intervals: bool = False
    aside: float = 0.0
    seeds: float = 0.0


def points_at(settings: Sequence[Setting], key: str, metric: str, axis_of: Places) -> dict[float, list[float]]:
    """The seeds' values at each place."""
    at: dict[float, list[float]] = {}
    for setting in settings:
        at.setdefault(axis_of.places[text(setting.keys[key])], []).extend(setting.values(metric))
    return {place: values for place, values in sorted(at.items()) if values}


def draw(axis: plt.Axes, at: dict[float, list[float]], style: Style) -> None:
    """Points of every seed; means, with intervals where there are several, and a line through them if there is one."""
    for place, values in at.items():
        beside = style.seeds if len(values) > 1 else style.aside
        axis.plot([place + beside] * len(values), values, "o", markersize=4, color=style.points, alpha=0.6)
    places, middle = [place + style.aside for place in at], [mean(values) for values in at.values()]
    spread = [half_interval(values) if style.intervals and len(values) > 1 else 0 for values in at.values()]
    drawn = {"markersize": 6, "color": style.means, "label": style.label}
    if any(spread):
        axis.errorbar(places, middle, yerr=spread, fmt=f"{style.line}D", capsize=4, **drawn)
    else:
        axis.plot(places, middle, f"{style.line}D", **drawn)


def show_all(axis: plt.Axes, values: Sequence[float]) -> None:
    """Every point in the picture; an interval may leave it: that of two seeds may be huge."""
    low, high = axis.get_ylim()
    room = (max(values) - min(values)) or 0.01 * abs(values[0]) or 1.0
    axis.set_ylim(max(low, min(values) - room), min(high, max(values) + room))


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
