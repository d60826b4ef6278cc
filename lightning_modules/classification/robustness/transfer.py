"""Images crafted on another run's network: what an attacker without the weights has.

Source: Papernot, McDaniel & Goodfellow 2016, "Transferability in Machine Learning" (arXiv 1605.07277).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules import attacks
from lightning_modules.classification.network import Classifier, kind
from reporting.intervals import RESAMPLES, mean_interval
from reporting.load import load_run

BATCH = 256


def surrogate(run: str | Path, spec: ImageSpec) -> Classifier:
    """The network of another run, in evaluation mode, for images of this spec.

    Raises:
        UsageError: there is no such run, or its network is of other images or classes.
    """
    network = load_run(run).network
    if not isinstance(network, Classifier):
        raise UsageError(f"attack.transfer: '{run}' is no classifier's run: give one of task=classification.")
    ours, theirs = spec, network.spec
    if (ours.channels, ours.height, ours.width) != (theirs.channels, theirs.height, theirs.width):
        raise UsageError(
            f"attack.transfer: '{run}' was trained on {described(theirs)} images, but these are {described(ours)}: "
            "give a run of the same size and channels."
        )
    if ours.classes != theirs.classes:
        raise UsageError(
            f"attack.transfer: '{run}' tells {theirs.classes} classes apart, but there are {ours.classes} here: give a "
            "run of the same classes."
        )
    return network


def described(spec: ImageSpec) -> str:
    return f"{kind(spec.channels)} {spec.height}×{spec.width}"


def right_on(network: Classifier, crafted: Mapping[str, np.ndarray], moved: bool = True) -> np.ndarray:
    """Which images (N,) a network names rightly: those crafted on some network, or as they were."""
    most = network.spec.levels - 1
    images = crafted["moved"] if moved else crafted["images"] / most
    forward = attacks.forward_of(network.eval(), network.spec.levels)
    batches = torch.from_numpy(images).float().split(BATCH)
    named = torch.cat([attacks.judged(forward, batch).argmax(1) for batch in batches])
    return named.numpy() == crafted["label"]


def transfer_figures(
    members: Mapping[str, Sequence[str]],
    right: Mapping[tuple[str, str], np.ndarray],
    clean: Mapping[str, np.ndarray],
) -> tuple[str, np.ndarray]:
    """The matrix between groups of runs: Markdown, and its shares (groups, groups).

    Args:
        members: group → its runs' names.
        right: (crafted on, tested on) → which images (N,) were right.
        clean: run → which were right without an attack.
    """
    names = list(members)
    lines = [f"| crafted on ↓, tested on → | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    lines.append(f"| nothing | {' | '.join(cell([clean[run] for run in members[name]]) for name in names)} |")
    shares = np.full((len(names), len(names)), np.nan)
    for row, crafted_on in enumerate(names):
        cells = []
        for column, tested_on in enumerate(names):
            pairs = [(one, other) for one in members[crafted_on] for other in members[tested_on] if one != other]
            found = [right[pair] for pair in pairs]
            cells.append(cell(found))
            shares[row, column] = np.mean(found) if found else np.nan
        lines.append(f"| {crafted_on} | {' | '.join(cells)} |")
    itself = [cell([right[run, run] for run in members[name]]) for name in names]
    lines.append(f"| the network itself | {' | '.join(itself)} |")
    count = len(next(iter(clean.values())))
    text = (
        f"Share right of {count:,} test images that PGD crafted (every step, one start) on one network and another one "
        "classifies, over all pairs of runs; on the diagonal runs of the same setting and another seed. In brackets "
        f"the 95 % interval of {RESAMPLES:,} bootstrap samples of the images. Low: what fools the one fools the other."
    )
    return "\n".join([text, "", *lines]), shares


def cell(found: Sequence[np.ndarray]) -> str:
    """A share with its interval over images, the mean over runs; `–` without one."""
    if not len(found):
        return "–"
    values = np.mean(found, axis=0)
    low, high = mean_interval(values)
    return f"{values.mean():.1%} ({low:.1%} … {high:.1%})"
