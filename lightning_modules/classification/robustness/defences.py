"""A defence in front of the network, attacked without and with knowledge of it: the figures between which it falls.

Source: Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security" (arXiv 1802.00420).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules import attacks
from lightning_modules.attacks.crafting import Forward
from lightning_modules.attacks.preprocessing import Median, Noise, Preprocessing
from lightning_modules.classification.robustness.suite import (
    LOSS_OF,
    STRENGTHS,
    Settings,
    all_steps,
    attack_named,
    pgds,
)
from reporting.intervals import mean_interval

DRAWS = 16  # of a random defence, whose mean gradient an attack follows (EOT)
FRESH = 20  # on which a random defence is judged
KINDS = {
    "clean": "no attack",
    "unaware": "the attack does not know it",
    "adaptive": "the attack knows it",
    "eot": f"and follows the mean of {DRAWS} draws",
}


def require_fitting(defence: Preprocessing, spec: ImageSpec) -> None:
    """Raises UsageError where images of this spec cannot pass a defence."""
    if isinstance(defence, Median) and defence.size // 2 >= min(spec.height, spec.width):
        raise UsageError(
            f"attack.preprocessing_strength is {defence.size}, but a median's window fits into images of "
            f"{spec.height}×{spec.width} up to {2 * min(spec.height, spec.width) - 1}."
        )
    defence(torch.zeros(1, *spec.shape))


def defended_rows(
    forward: Forward, images: Tensor, labels: Tensor, items: Sequence[int], unaware: Tensor, settings: Settings
) -> dict[str, np.ndarray]:
    """Of each image (N,) the share of passes behind the defence that are right; 0 or 1 where it is not random.

    `defended_clean`; `defended_unaware`: under images crafted on the network alone; `defended_adaptive`: under PGD
    through the defence, backward as the identity and, where there is one, by its true gradient, whichever breaks more;
    `defended_eot`, of random ones: through the mean of 16 draws too. Each is the worst of its own and the former
    images. `defended_way_…` are the forms alone, `defended_bare` is PGD's on the network without the defence. PGD
    climbs each loss that the stage's attacks name.

    Args:
        unaware: images crafted on the network alone, all steps.
    """
    defence = settings.defence()
    behind = attacks.defended(forward, defence)
    losses = [replace(settings, loss=LOSS_OF.get(name, settings.loss)) for name in pgds(settings) or ["pgd"]]
    ways = ("identity", "true") if defence.differentiable else ("identity",)

    def crafted(way: str, mean: bool) -> list[Tensor]:
        reseed(defence, settings.seed, items, f"{way} {mean}")
        through = attacks.defended(forward, defence, way)
        if not defence.random:
            return [attack_named("pgd", on, 0)(through, images, labels, items) for on in losses]
        through = attacks.averaged(through, DRAWS) if mean else through
        starts = range(settings.restarts)
        return [all_steps(through, images, labels, items, on, start) for on in losses for start in starts]

    def right(which: str, moved: Sequence[Tensor]) -> np.ndarray:
        reseed(defence, settings.seed, items, f"judged {which}")
        return share_of_worst(behind, [images, *moved], labels, FRESH if defence.random else 1).cpu().numpy()

    seen = [unaware, *(all_steps(forward, images, labels, items, on) for on in losses if on.loss != settings.loss)]
    found = {"clean": right("clean", []), "unaware": right("unaware", seen)}
    for name, mean in {"adaptive": False, "eot": True}.items():
        if mean and not defence.random:
            continue
        mine = {way: crafted(way, mean) for way in ways}
        found |= {f"way_{name}_{way}": right(f"{name} {way}", moved) for way, moved in mine.items()}
        seen += [moved for some in mine.values() for moved in some]
        found[name] = right(name, seen)
    bare = [attack_named("pgd", on, 0)(forward, images, labels, items) for on in losses]
    broken = torch.stack([attacks.succeeded(forward, moved, labels) for moved in bare]).any(0)
    found["bare"] = (~broken).float().cpu().numpy()
    return {f"defended_{name}": share for name, share in found.items()}


def share_of_worst(behind: Forward, candidates: Sequence[Tensor], labels: Tensor, draws: int) -> Tensor:
    """Of each item (N,) the share right on that of its candidates which breaks most; other draws choose it."""
    shares = torch.stack([attacks.share_right(behind, images, labels, draws) for images in candidates])
    worst, numbers = shares.argmin(0), torch.arange(len(labels), device=labels.device)
    return attacks.share_right(behind, torch.stack(list(candidates))[worst, numbers], labels, draws)


def reseed(defence: Preprocessing, seed: int, items: Sequence[int], what: str) -> None:
    """A stream of draws of its own for this batch and purpose: judging never sees the attack's."""
    if isinstance(defence, Noise):
        defence.reseed(crc32(f"{seed} {items[0]} {what}".encode()))


def defended_figures(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`attack/defended/…/accuracy` with Wilson's intervals, and the same without the defence, `…/bare/…`."""
    found = {}
    for name in (*KINDS, "bare"):
        if (shares := arrays.get(f"defended_{name}")) is not None:
            low, high = attacks.wilson(float(shares.sum()), len(shares))
            figure = f"attack/defended/{name}/accuracy"
            found |= {figure: float(shares.mean()), f"{figure}/low": low, f"{figure}/high": high}
    return found


def defence_text(arrays: Mapping[str, np.ndarray], settings: Settings) -> str:
    """Markdown: the figures one beside the other, the fall between them, and whether it is a defence."""
    found, kinds = defended_figures(arrays), [kind for kind in KINDS if f"defended_{kind}" in arrays]

    def share(kind: str) -> str:
        low, high = (found[f"attack/defended/{kind}/accuracy/{end}"] for end in ("low", "high"))
        return f"{found[f'attack/defended/{kind}/accuracy']:.1%} ({low:.1%} … {high:.1%})"

    last = kinds[-1]
    title = f"{settings.preprocessing}{strength_of(settings)}"
    bare = [f"{(arrays['logits'].argmax(1) == arrays['label']).mean():.1%}", *[""] * (len(kinds) - 2), share("bare")]
    lines = [
        f"| in front of the network | {' | '.join(KINDS[kind] for kind in kinds)} |",
        "|---|" + "---:|" * len(kinds),
    ]
    lines += [f"| **{title}** | {' | '.join(share(kind) for kind in kinds)} |", f"| nothing | {' | '.join(bare)} |"]
    fall = found["attack/defended/unaware/accuracy"] - found[f"attack/defended/{last}/accuracy"]
    gaps = arrays[f"defended_{last}"] - arrays["defended_bare"]
    low, high = mean_interval(gaps)
    said = f"{gaps.mean():+.1%} of images against the same attack without it (95 % interval {low:+.1%} … {high:+.1%})"
    verdict = f"**A defence** against this attack: {said}." if low > 0 else f"**No defence**: {said}."
    ways = [name.removeprefix("defended_way_") for name in arrays if name.startswith("defended_way_")]
    forms = ", ".join(f"{arrays[f'defended_way_{way}'].mean():.1%} ({form_of(way)})" for way in ways)
    both = " on each of two losses" if len(pgds(settings)) > 1 else ""
    how = (
        f"PGD-{settings.steps} × {settings.restarts}{both}, {settings.size}. Only the last column tells whether it "
        f"defends: an attack that does not know it leaves {fall:.1%} more. An image counts as broken by whichever form "
        f"of the attack breaks it; the forms alone leave {forms}."
    )
    if "defended_eot" in arrays:
        how += f" It is random: shares are means over {FRESH} draws that no attack saw."
    return "\n".join([how, "", *lines, "", verdict])


def form_of(way: str) -> str:
    """`adaptive_identity` in words."""
    kind, backward = way.rsplit("_", 1)
    back = "backward as the identity" if backward == "identity" else "its true gradient"
    return back + (f", the mean of {DRAWS} draws" if kind == "eot" else "")


def strength_of(settings: Settings) -> str:
    name = STRENGTHS[settings.preprocessing][0]
    return "" if settings.preprocessing_strength is None else f", {name} {settings.preprocessing_strength:g}"
