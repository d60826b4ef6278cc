"""What a random split of overlapping windows hides: `python -m lightning_modules.char_lm.leakage FOLDER`.

FOLDER is a multirun's of `sweep=char_split`. Prints a table of both splits, and leaves `leakage.md` and `leakage.png`
there. Every figure is of windows of equal length from a zero state, of the weights best on the split's own validation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import pyplot as plt

from datamodules.errors import UsageError
from datamodules.tools import run_tool
from reporting.figures import save
from reporting.folder import read_run
from reporting.report import write_text
from reporting.statistics import half_interval

SPLITS = ("temporal", "random")
CLAIMS = """One course project says that a random split gives misleadingly high figures; another's table gives it 7.6 %
accuracy at perplexity 11.2 on validation data, far below its temporal split's 53.4 % and 5.22."""


class Result(NamedTuple):
    """One run: losses in nats, accuracies as fractions; training figures as they were at the best validation."""

    split: str
    seed: int
    train_loss: float
    val_loss: float
    held_loss: float
    train_accuracy: float
    val_accuracy: float
    held_accuracy: float

    @property
    def gap(self) -> float:
        """How much better validation looks than the held-out stretch, in nats."""
        return self.held_loss - self.val_loss


def read_results(folder: Path) -> list[Result]:
    """The finished runs of a sweep over data.split and seed.

    Raises:
        UsageError: there are none of both splits, or they differ in window or scoring.
    """
    results, kinds = [], set()
    for path in sorted(folder.glob("*/metrics.json")):
        config, metrics = read_run(path.parent)
        if "test/loss_reset" not in metrics or config.choices.task != "char_lm":
            continue
        names = ("train/{}", "val/{}", "test/{}_reset")
        figures = [metrics[name.format(figure)] for figure in ("loss", "accuracy") for name in names]
        results.append(Result(config.data.split, config.seed, *figures))
        kinds.add((config.choices.data, config.data.window, config.data.scoring, config.model.hidden))
    if {result.split for result in results} != set(SPLITS):
        raise UsageError(f"'{folder}' has no finished runs of both splits: give the folder of a sweep=char_split.")
    if len(kinds) > 1 or next(iter(kinds))[2] != "reset":
        raise UsageError(
            f"The runs in '{folder}' cannot be compared: data, window or scoring differ, or it is carried."
        )
    return results


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± half its 95 % interval; the mean alone of one value."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(half_interval(values), form)}" if len(values) > 1 else mean


def by_split(results: Sequence[Result]) -> Mapping[str, list[Result]]:
    return {split: [result for result in results if result.split == split] for split in SPLITS}


def page(results: Sequence[Result]) -> str:
    """Markdown: one row a split, one row a run, and what it comes to."""
    lines = [
        "| split | runs | train, nats | validation, nats | held out, nats | difference, nats | validation perplexity "
        "| held-out perplexity | validation accuracy | held-out accuracy |",
        "|---|" + "---:|" * 9,
    ]
    for split, runs in by_split(results).items():
        nats = [spread([getattr(run, name) for run in runs], ".4f") for name in
                ("train_loss", "val_loss", "held_loss", "gap")]  # fmt: skip
        perplexities = [spread([math.exp(getattr(run, name)) for run in runs], ".2f") for name in
                        ("val_loss", "held_loss")]  # fmt: skip
        accuracies = [spread([getattr(run, name) for run in runs], ".2%") for name in
                      ("val_accuracy", "held_accuracy")]  # fmt: skip
        lines.append(f"| {' | '.join([split, str(len(runs)), *nats, *perplexities, *accuracies])} |")
    lines += ["", "| split | seed | validation, nats | held out, nats | difference |", "|---|---:|---:|---:|---:|"]
    for run in sorted(results, key=lambda run: (SPLITS.index(run.split), run.seed)):
        lines.append(f"| {run.split} | {run.seed} | {run.val_loss:.4f} | {run.held_loss:.4f} | {run.gap:+.4f} |")
    note = "± is half the 95 % interval of the mean over seeds (Student's t)."
    return "\n".join([*lines, "", note, "", conclusion(results), "", CLAIMS]) + "\n"


def conclusion(results: Sequence[Result]) -> str:
    """What the figures say, in words."""
    temporal, random = (statistics.mean(run.gap for run in by_split(results)[split]) for split in SPLITS)
    leak = random - temporal
    sampled = [statistics.stdev([run.gap for run in runs]) if len(runs) > 1 else 0.0
               for runs in by_split(results).values()]  # fmt: skip
    noise = math.sqrt(sum(value**2 for value in sampled))
    means = {
        (split, name): statistics.mean(getattr(run, name) for run in runs)
        for split, runs in by_split(results).items()
        for name in ("held_loss", "val_accuracy")
    }
    verdict = (
        f"validation on a random split looks {leak:.3f} nats better than it is"
        if leak > 2 * noise
        else f"no leakage beyond the seeds' own spread ({noise:.3f} nats) is seen"
        if abs(leak) <= 2 * noise
        else f"validation on a random split looks {-leak:.3f} nats worse than it is"
    )
    return (
        f"Held-out text costs {random:+.3f} nats more than validation on the random split, and {temporal:+.3f} on the "
        f"temporal one, whose validation shares no text with training. By the difference, {leak:+.3f} nats, {verdict}. "
        "(The two validate on different text, the temporal split on the stretch before the held-out one: where "
        "stretches differ in difficulty, a part of this figure is that.) On the held-out text itself, the same for "
        f"both, the random split's networks reach {means['random', 'held_loss']:.3f} nats, the temporal one's "
        f"{means['temporal', 'held_loss']:.3f}; validation accuracy is {means['random', 'val_accuracy']:.2%} against "
        f"{means['temporal', 'val_accuracy']:.2%}."
    )


def save_figure(path: Path, results: Sequence[Result]) -> None:
    """Validation and held-out loss of every run, joined by a line."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for number, (split, runs) in enumerate(by_split(results).items()):
        for run in runs:
            line = axis.plot([0, 1], [run.val_loss, run.held_loss], "o-", color=f"C{number}")
        line[0].set_label(f"{split} split, each seed")
    axis.set_xticks([0, 1], ["validation", "held out (last 5 %)"])
    axis.set_xlim(-0.3, 1.3)
    axis.set_ylabel("nats per character")
    axis.grid(axis="y", alpha=0.3)
    axis.legend()
    save(figure, path)


def main(words: Sequence[str]) -> str:
    if len(words) != 1:
        raise UsageError("Give one folder: python -m lightning_modules.char_lm.leakage multiruns/char_split/…")
    folder = Path(words[0])
    results = read_results(folder)
    text = page(results)
    write_text(folder / "leakage.md", text)
    save_figure(folder / "leakage.png", results)
    return text


if __name__ == "__main__":
    run_tool(main)
