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
ONE_AFTER_ANOTHER = ("apgd_ce", "apgd_t", "square")  # each on the images that the former left standing
MOST = {"items": 1_000_000, "batch_size": 100_000, "steps": 100_000, "restarts": 1000, "cw_items": 1_000_000}


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

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Settings:
        given = {key: node[key] for key in cls.__dataclass_fields__}
        for name in given["attacks"]:
            if name not in TITLES:
                near = did_you_mean(str(name), TITLES)
                raise UsageError(f"attack.attacks names {name}{near}: choose from {', '.join(TITLES)}.")
        for name, most in MOST.items():
            least = 0 if name == "cw_items" else 1
            if not isinstance(given[name], int) or not least <= given[name] <= most:
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
        return cls(**given)

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
        aimed = self.targeted and name not in ("apgd_t", "square", "noise")
        return self._numbers(name) + (", targeted at the next class" if aimed else "")

    def _numbers(self, name: str) -> str:
        if name == "pgd_margin":
            return f"PGD-{self.steps} × {self.restarts}, margin"
        if name == "pgd":
            return f"PGD-{self.steps} × {self.restarts}, {self.loss}"
        if name == "apgd_ce":
            return f"{TITLES[name]}, {self.steps} steps × {self.restarts}"
        if name == "apgd_t":
            return f"{TITLES[name]}, {self.steps} steps each"
        return f"{TITLES[name]}, {self.queries:,}" if name == "square" else TITLES[name]


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
            return attacks.noise(forward, images, labels, **how, **drawn)
        if name in ("pgd", "pgd_margin"):
            way = {"step": settings.step, "steps": settings.steps, "restarts": settings.restarts}
            loss = "margin" if name == "pgd_margin" else settings.loss
            return attacks.pgd(forward, images, labels, **how, **way, loss=loss, **drawn)
        if name == "cw":
            return attacks.cw(forward, images, labels, targets=how.get("targets"))
        if name == "apgd_ce":
            way = {"steps": settings.steps, "restarts": settings.restarts}
            return attacks.apgd(forward, images, labels, **how, **way, **drawn)
        if name == "apgd_t":
            return attacks.apgd_t(forward, images, labels, **ball, steps=settings.steps, **drawn)
        return attacks.square(forward, images, labels, eps=settings.eps, queries=settings.queries, **drawn)

    return run
