"""Is the attack any good? What must hold of one that can be believed, each with its figures and a verdict.

Sources: Carlini et al. 2019, "On Evaluating Adversarial Robustness" (arXiv 1902.06705); Athalye et al. 2018,
"Obfuscated Gradients Give a False Sense of Security" (arXiv 1802.00420); Zimmermann et al. 2022, "Increasing Confidence
in Adversarial Robustness Evaluations" (arXiv 2206.13991).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lightning_modules.classification.robustness.soundness import LOSSES
from lightning_modules.classification.robustness.stage import names_of

ENOUGH = 1000  # images, for a difference of a per cent to be seen
SMALL = 0.01
GRADIENTS = ("pgd", "apgd_ce", "apgd_t")


class Check(NamedTuple):
    """What should hold, what was found, and the verdict in words."""

    what: str
    found: str
    verdict: str


def checks(arrays: Mapping[str, np.ndarray], curve: Sequence[float]) -> list[Check]:
    """Every check that these figures allow."""
    right = {name: arrays[f"logits_{name}"].argmax(1) == arrays["label"] for name in names_of(arrays) if name != "cw"}
    right["clean"] = arrays["logits"].argmax(1) == arrays["label"]
    found = [at_the_whole_range(arrays), *falls(arrays, curve)]
    iterative = next((name for name in GRADIENTS if name in right), None)
    if iterative and "fgsm" in right:
        found.append(at_least_as_strong(right, iterative, "fgsm", "Many steps break at least what one step does"))
    if iterative and "noise" in right:
        found.append(at_least_as_strong(right, iterative, "noise", "The gradient breaks at least what chance does"))
    if iterative and "transfer" in right:
        what = "The network's own gradient breaks at least what another network's does"
        found.append(at_least_as_strong(right, iterative, "transfer", what))
    if "square" in right and iterative:
        found.append(square_adds_little(right))
    if iterative and "right_longer" in arrays:
        found.insert(1, converged(arrays, right))
    if "surfaces" in arrays:
        found.append(rises_along_the_gradient(arrays["surfaces"]))
    if "logits_cw" in arrays and arrays["tried_cw"].any():
        found.append(falls_at_some_distance(arrays))
    found.append(gradients_exist(arrays))
    return [*found, breaks_what_can_be(arrays["confidence"])] if "confidence" in arrays else found


def at_the_whole_range(arrays: Mapping[str, np.ndarray]) -> Check:
    """Where every image can become every other (L∞: ε = 1) accuracy must be 0, or the gradient is masked."""
    share = float(arrays["right_at_all"].mean())
    verdict = "holds" if share == 0 else "**does not hold: the gradient is masked, or the steps are too few**"
    return Check("Where ε is the whole range nothing withstands", f"{share:.1%} right", verdict)


def converged(arrays: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> Check:
    """Twice the steps, from as many other starts: of all images, those that stood and now fall."""
    standing = np.logical_and.reduce(list(right.values()))
    share = float((standing & ~arrays["right_longer"]).mean())
    verdict = "holds" if share < SMALL else "**not converged: give more steps and restarts**"
    said = f"another {share:.1%} broken: {standing.mean():.1%} → {arrays['right_longer'].mean():.1%}"
    return Check("Twice the steps, from other starts too, change nothing", said, verdict + few(right))


def rises_along_the_gradient(surfaces: np.ndarray) -> Check:
    """The loss of the images whose surface is drawn, ε along the gradient's sign and ε along random signs."""
    middle = surfaces.shape[1] // 2
    rises = surfaces[:, -1, middle] - surfaces[:, middle, middle]
    chance = np.abs(surfaces[:, middle, [0, -1]] - surfaces[:, middle, middle, None]).max(1)
    said = f"+{rises.mean():.2f} nats along it, {chance.mean():.2f} at most at random ({len(surfaces)} images)"
    verdict = "holds" if rises.mean() > chance.mean() else "**does not hold: the gradient is masked**"
    return Check("The loss rises most along the gradient", said, verdict)


def breaks_what_can_be(confidence: np.ndarray) -> Check:
    """Networks altered so that an adversarial image surely exists are broken, and not by chance."""
    parts, passed = [], True
    for loss, (attack, noise, items) in zip(LOSSES, confidence, strict=True):
        parts.append(f"{loss} breaks {attack:.0%}, chance {noise:.0%} of {items:.0f}")
        passed &= bool(items and attack >= 0.95 and noise < 0.5)
    verdict = "holds" if passed else "**does not hold: the attack misses what surely exists**"
    return Check("An adversarial image that surely exists is found", "; ".join(parts), verdict)


def falls(arrays: Mapping[str, np.ndarray], curve: Sequence[float]) -> list[Check]:
    """Accuracy must fall, weakly, with ε."""
    if len(curve) < 2:
        return []
    shares = [float(arrays[f"right_at_{multiple:g}"].mean()) for multiple in sorted(curve)]
    rises = max(later - before for before, later in pairwise(shares))
    said = " → ".join(f"{share:.1%}" for share in shares)
    return [Check("Accuracy falls with ε", said, "holds" if rises <= SMALL else f"**rises by {rises:.1%}**")]


def at_least_as_strong(right: Mapping[str, np.ndarray], strong: str, weak: str, what: str) -> Check:
    """Paired, item by item: how many the weak attack breaks and the strong one does not."""
    missed = (~right[weak] & right[strong] & right["clean"]).mean()
    gained = (right[weak] & ~right[strong] & right["clean"]).mean()
    said = f"{strong} alone breaks {gained:.1%}, {weak} alone {missed:.1%}"
    verdict = "holds" if missed <= SMALL + gained else "**does not hold: the steps go astray**"
    return Check(what, said, verdict + few(right))


def square_adds_little(right: Mapping[str, np.ndarray]) -> Check:
    """Queries alone, tried on what gradients left standing, should break next to nothing."""
    before = np.logical_and.reduce([right[name] for name in right if name != "square"])
    share = float((before & ~right["square"]).mean())
    verdict = "holds" if share <= SMALL else "**does not hold: the gradient hides something**"
    return Check("Queries alone add little", f"Square alone breaks {share:.1%}", verdict + few(right))


def falls_at_some_distance(arrays: Mapping[str, np.ndarray]) -> Check:
    """However robust a network is, some image is named otherwise: a search without a limit that misses it is broken."""
    mine = arrays["tried_cw"] & (arrays["logits"].argmax(1) == arrays["label"])
    share = float((arrays["logits_cw"].argmax(1) != arrays["label"])[mine].mean()) if mine.any() else 1.0
    verdict = "holds" if share == 1 else "**does not hold: the search for the nearest image fails**"
    return Check("At some distance every image falls", f"Carlini and Wagner's breaks {share:.1%}", verdict)


def gradients_exist(arrays: Mapping[str, np.ndarray]) -> Check:
    """An image without a gradient cannot be attacked by one."""
    share = float(arrays["zero_gradient"].mean())
    verdict = "holds" if share <= SMALL else "**does not hold: attack it with loss=margin or dlr, or by queries**"
    return Check("Every image has a gradient", f"{share:.1%} have none", verdict)


def few(right: Mapping[str, np.ndarray]) -> str:
    count = len(right["clean"])
    return "" if count >= ENOUGH else f" (too few to tell: {count} images)"


def sanity_table(found: Sequence[Check]) -> str:
    """Markdown."""
    lines = ["| what must hold | found | verdict |", "|---|---|---|"]
    lines += [f"| {check.what} | {check.found} | {check.verdict} |" for check in found]
    tried = any("another network's" in check.what for check in found)
    return "\n".join(
        lines if tried else [*lines, "", "Not tried here: transfer from another network (attack.transfer)."]
    )
