"""What `attack=quick|standard|strong` runs: attacks by name, on batches of float images in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from datamodules.errors import UsageError, did_you_mean
from lightning_modules import attacks
from lightning_modules.attacks import parse_eps
from lightning_modules.attacks.crafting import Forward

Attack = Callable[[Forward, Tensor, Tensor, Sequence[int]], Tensor]  # forward, images, labels, items → images
TITLES = {
    "noise": "the best of ten random points",
    "fgsm": "FGSM, one step",
    "pgd": "PGD",
    "pgd_margin": "PGD on the margin",
    "cw": "Carlini and Wagner, the smallest L2 distance",
    "apgd_ce": "APGD, cross-entropy",
    "apgd_t": "APGD, targeted DLR at the nine likeliest other classes",
    "square": "Square, queries alone",
}
LOSS_OF = {"pgd_margin": "margin"}  # what a PGD raises in place of attack.loss
TRANSFER = "transfer"  # beside those above where a run is named: PGD on its network, tried on this one
ONE_AFTER_ANOTHER = ("apgd_ce", "apgd_t", "square")  # each on the images that the former left standing
MOST = {"items": 1_000_000, "batch_size": 100_000, "steps": 100_000, "restarts": 1000, "cw_items": 1_000_000,
        "apgd_steps": 100_000, "apgd_restarts": 1000}  # fmt: skip
SAMPLES, SEARCHES, CW_STEPS = 10, 9, 1000  # of noise; of Carlini and Wagner's attack, at most so long each
# The one number that each defence has, and whether it is whole.
STRENGTHS = {
    "bit_depth": ("bits", int),
    "jpeg": ("quality", int),
    "median": ("size", int),
    "smooth": ("sd", float),
    "noise": ("sd", float),
    "tv": ("weight", float),
}


@dataclass(frozen=True)
class Settings:
    """`config.attack`, checked; sizes in units of intensities 0 … 1.

    Raises:
        UsageError: a number, a norm, a loss or a name is impossible.
    """

    attacks: Sequence[str]
    items: int
    batch_size: int
    norm: str
    eps: float
    steps: int
    step: float | None
    restarts: int
    loss: str
    targeted: bool
    curve: Sequence[float]
    cw_items: int
    queries: int
    seed: int
    apgd_steps: int = 100
    apgd_restarts: int = 5
    preprocessing: str = "none"
    preprocessing_strength: float | None = None
    transfer: str | None = None

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Settings:
        given = {key: node[key] for key in cls.__dataclass_fields__ if key in node}  # those of earlier have fewer
        for name in given["attacks"]:
            if name not in TITLES:
                near = did_you_mean(str(name), TITLES)
                raise UsageError(f"attack.attacks names {name}{near}: choose from {', '.join(TITLES)}.")
        for name, most in MOST.items():
            least = 0 if name == "cw_items" else 1
            if name in given and (not isinstance(given[name], int) or not least <= given[name] <= most):
                raise UsageError(f"attack.{name} is {given[name]}, but it must be from {least} to {most:,}.")
        if not given["attacks"]:
            raise UsageError(f"attack.attacks is empty: choose from {', '.join(TITLES)}.")
        if not all(type(multiple) in (int, float) and 0 < multiple < math.inf for multiple in given["curve"]):
            raise UsageError(f"attack.curve is {list(given['curve'])}, but it must be multiples of eps above 0.")
        for name, key in {"cw": "cw_items", "square": "queries"}.items():
            if name in given["attacks"] and not given[key] >= 1:
                raise UsageError(f"attack.{key} is {given[key]}, but attack.attacks names {name}: give 1 or more.")
        if given["norm"] not in ("Linf", "L2"):
            raise UsageError(f"attack.norm is {given['norm']}{did_you_mean(str(given['norm']), ('Linf', 'L2'))}: "
                             "choose Linf or L2.")  # fmt: skip
        if given["loss"] not in attacks.LOSSES:
            near = did_you_mean(str(given["loss"]), attacks.LOSSES)
            raise UsageError(f"attack.loss is {given['loss']}{near}: choose from {', '.join(attacks.LOSSES)}.")
        if given["norm"] == "L2" and "square" in given["attacks"]:
            raise UsageError("attack.norm=L2 is none of Square's: choose Linf, or attack=standard.")
        given["eps"] = parse_eps(given["eps"], given["norm"], "attack.eps")
        if given["step"] is not None:
            given["step"] = parse_eps(given["step"], given["norm"], "attack.step")
        settings = cls(**given)
        if settings.defence() is not None and settings.targeted:
            raise UsageError("attack.preprocessing is judged by accuracy: leave attack.targeted at false.")
        return settings

    def defence(self) -> attacks.Preprocessing | None:
        """What stands in front of the network, new; None: nothing.

        Raises:
            UsageError: there is no such defence, or not so strong a one.
        """
        if self.preprocessing in ("none", None):
            return None
        strength, (name, kind) = self.preprocessing_strength, STRENGTHS.get(self.preprocessing, ("", float))
        if strength is None or not name:
            return attacks.preprocessing(self.preprocessing)
        if type(strength) not in (int, kind):
            whole = "a whole number" if kind is int else "a number"
            raise UsageError(
                f"attack.preprocessing_strength is {strength}, but {name} of {self.preprocessing} is {whole}."
            )
        return attacks.preprocessing(self.preprocessing, **{name: strength})

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
                for key, value in asdict(self).items()}  # fmt: skip

    @property
    def size(self) -> str:
        """ε in words: as a fraction of 255 where it is one."""
        levels = self.eps * 255
        shown = f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 and self.norm == "Linf" else f"{self.eps:g}"
        return f"{'L∞' if self.norm == 'Linf' else 'L2'} ≤ {shown}"

    def described(self, name: str) -> str:
        """An attack with its numbers, for a table."""
        aimed = self.targeted and name not in ("apgd_t", "square", "noise", TRANSFER)
        return self._numbers(name) + (", targeted at the next class" if aimed else "")

    def _numbers(self, name: str) -> str:
        if name == "pgd":
            return f"PGD-{self.steps} × {self.restarts}, {self.loss}"
        if name == TRANSFER:
            return f"PGD-{self.steps}, {self.loss}, crafted on `{self.transfer}`"
        if name == "pgd_margin":
            return f"PGD-{self.steps} × {self.restarts}, margin"
        if name == "apgd_ce":
            return f"{TITLES[name]}, {self.apgd_steps} steps × {self.apgd_restarts}"
        if name == "apgd_t":
            return f"{TITLES[name]}, {self.apgd_steps} steps each"
        return f"{TITLES[name]}, {self.queries:,}" if name == "square" else TITLES[name]


def passes_at_most(name: str, settings: Settings, classes: int) -> int:
    """How often at most an attack passes one image through the network, but for a last look or two."""
    return {
        "noise": SAMPLES,
        "fgsm": 1,
        "pgd": settings.steps * settings.restarts,
        "pgd_margin": settings.steps * settings.restarts,
        "cw": SEARCHES * CW_STEPS,
        "apgd_ce": settings.apgd_steps * settings.apgd_restarts,
        "apgd_t": settings.apgd_steps * min(9, classes - 1),
        "square": settings.queries,
    }[name]


def pgds(settings: Settings) -> list[str]:
    """Those of the attacks that are PGD: on one loss, or on two."""
    return [name for name in settings.attacks if name in ("pgd", "pgd_margin")]


def attack_named(name: str, settings: Settings, classes: int) -> Attack:
    """An attack with these settings, as a function of (forward, images, labels, items)."""
    ball = {"eps": settings.eps, "norm": settings.norm}

    def run(forward: Forward, images: Tensor, labels: Tensor, items: Sequence[int]) -> Tensor:
        how = dict(ball)
        if settings.targeted:
            how["targets"] = (labels + 1) % classes
        if name == "fgsm":
            return attacks.fgsm(forward, images, labels, **how, loss=settings.loss)
        drawn = {"seed": settings.seed, "items": items}
        if name == "noise":
            return attacks.noise(forward, images, labels, **how, **drawn, samples=SAMPLES)
        if name in ("pgd", "pgd_margin"):
            way = {"step": settings.step, "steps": settings.steps, "restarts": settings.restarts}
            loss = LOSS_OF.get(name, settings.loss)
            return attacks.pgd(forward, images, labels, **how, **way, loss=loss, **drawn)
        if name == "cw":
            way = {"searches": SEARCHES, "steps": CW_STEPS}
            return attacks.cw(forward, images, labels, **way, targets=how.get("targets"))
        if name == "apgd_ce":
            way = {"steps": settings.apgd_steps, "restarts": settings.apgd_restarts}
            return attacks.apgd(forward, images, labels, **how, **way, **drawn)
        if name == "apgd_t":
            return attacks.apgd_t(forward, images, labels, **ball, steps=settings.apgd_steps, **drawn)
        return attacks.square(forward, images, labels, eps=settings.eps, queries=settings.queries, **drawn)

    return run


def all_steps(
    forward: Forward, images: Tensor, labels: Tensor, items: Sequence[int], settings: Settings, restart: int = 0
) -> Tensor:
    """PGD's images after every step, none stopped at its first success: what another network is tried with."""
    ball = {"eps": settings.eps, "norm": settings.norm, "step": settings.step, "steps": settings.steps}
    drawn = {"seed": settings.seed + restart, "items": items}
    return attacks.pgd(forward, images, labels, **ball, loss=settings.loss, keep="last", **drawn)
