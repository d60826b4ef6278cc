"""Published figures, and which of our kept runs and sweeps stand beside each: the comparison that opens RESULTS.md,
and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reporting.published import LOWER, Figure, Origin, command_for
from reporting.results.kept import CLASS_FIGURE, Kept, known_task

BETTER, WORSE, EQUAL = "▲", "▼", "="


@dataclass(frozen=True)
class Beside:
    """A published figure with ours: those that hold it, the best on validation data first; what else was run."""

    figure: Figure
    ours: Sequence[Kept]
    without: Sequence[Kept]  # runs and settings that measured it, but whose kept files lack it

    @property
    def value(self) -> float | None:
        """Ours: of the first."""
        return self.ours[0].metrics[self.figure.metric] if self.ours else None

    @property
    def mark(self) -> str:
        """Is ours better? Empty without ours."""
        if self.value is None:
            return ""
        gap = (self.value - self.figure.value) * (-1 if self.figure.lower else 1)
        return EQUAL if gap == 0 else BETTER if gap > 0 else WORSE


def beside(figure: Figure, kept: Sequence[Kept]) -> Beside:
    """What stands beside a figure; nothing beside one that names no settings."""
    same = [one for one in kept if figure.words and figure.beside(one.data, one.settings)]
    ours = trained(figure, distinct([one for one in same if figure.metric in one.metrics]))
    return Beside(figure, best_first(figure, ours), [one for one in same if figure.metric in one.not_kept])


def distinct(ours: Sequence[Kept]) -> list[Kept]:
    """Each once: a run kept from a sweep stands for its setting, the mean over several seeds for the run."""
    left_out = [setting if setting.seeds == 1 else run for setting in ours for run in ours if setting.holds(run)]
    return [one for one in ours if one not in left_out]


def trained(figure: Figure, ours: Sequence[Kept]) -> list[Kept]:
    """Those that hold a figure of training as their own: a run of stages only has its checkpoint's."""
    if not figure.metric.startswith(("train/", "val/")):
        return list(ours)
    return [one for one in ours if "seconds/fit" in one.metrics] or list(ours)


def best_first(figure: Figure, ours: Sequence[Kept]) -> list[Kept]:
    """By the figure's own metric on validation data, else by the one of the task that most of them have; last come
    those without it."""
    if not ours:
        return []
    names = [*(f"val/{name}" for name in known_task(ours[0].task)["shown"]), known_task(ours[0].task)["monitor"]]
    chosen = max(names, key=lambda name: sum(name in one.metrics for one in ours))
    if any(own_validation(figure.metric) in one.metrics for one in ours):
        chosen = own_validation(figure.metric)
    lower = figure.lower if chosen == own_validation(figure.metric) else bool(LOWER.search(chosen))

    def order(one: Kept) -> tuple[bool, float]:
        value = one.metrics.get(chosen, 0.0)
        return chosen not in one.metrics, value if lower else -value

    return sorted(ours, key=order)


def own_validation(metric: str) -> str:
    """The metric on validation data: of `svm/test/accuracy` `svm/val/accuracy`, of a stage's own `val/` and its last
    part."""
    parts = metric.split("/")
    if {"train", "val", "test"} & set(parts):
        return "/".join("val" if part in ("train", "test") else part for part in parts)
    return f"val/{parts[-1]}"


def headline(figures: Sequence[Figure], kept: Sequence[Kept], origins: Sequence[Origin]) -> list[str]:
    """One line a system: its figure on test data, else on validation data."""
    lines = [
        "| system | data | figure | published | ours | difference | | our run | published by |",
        "|---|---|---|---:|---:|---:|---|---|---|",
    ]
    for figure in headline_figures(figures):
        found = beside(figure, kept)
        words_of_mark = {BETTER: "▲ better", WORSE: "▼ worse", EQUAL: "= equal", "": ""}[found.mark]
        shown = [
            figure.name,
            figure.data,
            words(figure.metric),
            f"{figure.value:g}",
            our_figure(found),
            difference(found),
        ]
        lines.append(row([*shown, words_of_mark, where(found, origins), figure.source]))
    return [*lines, ""]


def headline_figures(figures: Sequence[Figure]) -> list[Figure]:
    """For each system the first figure of its test split or of a stage, else of its validation split; by data set."""
    systems: dict[tuple[str, str, str], list[Figure]] = {}
    for figure in figures:
        if figure.headline and figure.words and not CLASS_FIGURE.fullmatch(figure.metric):
            systems.setdefault((figure.name, figure.data, figure.source), []).append(figure)
    found = []
    for own in systems.values():
        untrained = [figure for figure in own if not figure.metric.startswith("train/")]
        tested = [figure for figure in untrained if not figure.metric.startswith("val/")]
        found += (tested or untrained)[:1]
    order = list(dict.fromkeys(figure.data for figure in figures))
    return sorted(found, key=lambda figure: order.index(figure.data))


def published_tables(figures: Sequence[Figure], kept: Sequence[Kept], origins: Sequence[Origin]) -> list[str]:
    """Every published figure but those of single classes, a table for each data set."""
    lines = [
        "## Published figures, and ours beside them",
        "",
        "Beside each figure stands the kept run, or the setting of a kept sweep, with the settings that it names,",
        "whatever its budget and recipe: of several the best on validation data, and under *all kept* how many there",
        "are and how far they spread. ▲ ours is better, ▼ worse. ±: half the 95 % interval of a mean over seeds.",
        "*Not run*: there is none, and the command would run it; *not kept*: it was run, and the kept files lack this",
        "figure; –: no run is meant, the figure is a bound.",
        "",
    ]
    shown = [figure for figure in figures if not CLASS_FIGURE.fullmatch(figure.metric)]
    for data in dict.fromkeys(figure.data for figure in shown):
        lines += [
            f"### {data}",
            "",
            "| system | metric | published | ours | difference | | our run | all kept | published by |",
            "|---|---|---:|---:|---:|---|---|---|---|",
        ]
        lines += [published_row(figure, kept, origins) for figure in shown if figure.data == data]
        lines += ["", *class_links(data, kept)]
    return lines


def class_links(data: str, kept: Sequence[Kept]) -> list[str]:
    """Where the figures of single classes are."""
    having = [one for one in kept if one.data == data and any(map(CLASS_FIGURE.fullmatch, one.metrics))]
    links = [f"[{one.name}](results/{one.name}/classes.md)" for one in having]
    return [f"Class by class, beside what was published of it: {', '.join(links)}.", ""] if links else []


def published_row(figure: Figure, kept: Sequence[Kept], origins: Sequence[Origin] = ()) -> str:
    """The figure, what stands beside it, and how far all that could stand there spread."""
    found = beside(figure, kept)
    cells = [figure.name, words(figure.metric), f"{figure.value:g}", our_figure(found), difference(found), found.mark]
    return row([*cells, where(found, origins), spread(found), figure.source])


def our_figure(found: Beside) -> str:
    """Our figure, a mean over seeds with its interval; else what there is in its place."""
    if found.value is not None:
        return number(found.value) + interval(found.ours[0], found.figure.metric)
    if not found.figure.words:
        return "–"
    return "not kept" if found.without else "not run"


def interval(one: Kept, metric: str) -> str:
    half = one.intervals.get(metric)
    return "" if half is None else f" ± {half:.{places(one.metrics[metric])}f}"


def difference(found: Beside) -> str:
    return "" if found.value is None else f"{found.value - found.figure.value:+.{places(found.value)}f}"


def where(found: Beside, origins: Sequence[Origin]) -> str:
    """A link to what stands there; without any, the command that would run it."""
    if found.ours or found.without:
        return (found.ours or found.without)[0].link
    command = command_for(found.figure, origins) if found.figure.words else ""
    return f"`{command}`" if command else ""


def spread(found: Beside) -> str:
    """`5: 80.06 – 84.94` of several kept runs and settings."""
    values = sorted(one.metrics[found.figure.metric] for one in found.ours)
    return f"{len(values)}: {number(values[0])} – {number(values[-1])}" if len(values) > 1 else ""


def places(value: float) -> int:
    """Digits after the point: four, of large values two."""
    return 4 if abs(value) < 10 else 2


def number(value: float) -> str:
    return f"{value:,.{places(value)}f}"


def words(metric: str) -> str:
    """A metric's name as a table prints it."""
    return metric.replace("/", " ").replace("bits_per_dim", "bits/dim").replace("_per_", "/").replace("_", " ")


def row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
