"""What attacks a classifier: pure functions of (forward, images, labels), without Lightning, usable in a notebook."""

from lightning_modules.attacks.amounts import parse_eps
from lightning_modules.attacks.apgd import apgd, apgd_t
from lightning_modules.attacks.carlini_wagner import cw
from lightning_modules.attacks.crafting import Passes, crafting, exact, forward_of
from lightning_modules.attacks.gradient import fgsm, pgd
from lightning_modules.attacks.judging import first_success, in_sequence, judged, succeeded, wilson, worst_case
from lightning_modules.attacks.losses import LOSSES, cross_entropy, dlr, dlr_t, loss_used, margin
from lightning_modules.attacks.simple import noise, spatial
from lightning_modules.attacks.square import square
from lightning_modules.attacks.training import adversarial, eps_now, trades_loss

__all__ = [
    "LOSSES",
    "Passes",
    "adversarial",
    "apgd",
    "apgd_t",
    "crafting",
    "cross_entropy",
    "cw",
    "dlr",
    "dlr_t",
    "eps_now",
    "exact",
    "fgsm",
    "first_success",
    "forward_of",
    "in_sequence",
    "judged",
    "loss_used",
    "margin",
    "noise",
    "parse_eps",
    "pgd",
    "spatial",
    "square",
    "succeeded",
    "trades_loss",
    "wilson",
    "worst_case",
]
