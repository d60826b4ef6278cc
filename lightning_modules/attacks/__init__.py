"""What attacks a classifier: pure functions of (forward, images, labels), without Lightning, usable in a notebook."""

from lightning_modules.attacks.amounts import parse_eps
from lightning_modules.attacks.auto_pgd import apgd, apgd_t
from lightning_modules.attacks.carlini_wagner import cw
from lightning_modules.attacks.crafting import Passes, crafting, exact, forward_of
from lightning_modules.attacks.gradient import fgsm, pgd
from lightning_modules.attacks.judging import first_success, in_sequence, judged, succeeded, wilson, worst_case
from lightning_modules.attacks.losses import LOSSES, cross_entropy, dlr, dlr_t, loss_used, margin
from lightning_modules.attacks.preprocessing import (
    PREPROCESSING,
    Preprocessing,
    adaptive,
    averaged,
    defended,
    preprocessing,
    share_right,
)
from lightning_modules.attacks.sanity import increasing_confidence, loss_surface, zero_gradients
from lightning_modules.attacks.simple import noise, spatial
from lightning_modules.attacks.squares import square
from lightning_modules.attacks.training import adversarial, eps_now, trades_loss

__all__ = [
    "LOSSES",
    "PREPROCESSING",
    "Passes",
    "Preprocessing",
    "adaptive",
    "adversarial",
    "apgd",
    "apgd_t",
    "averaged",
    "crafting",
    "cross_entropy",
    "cw",
    "defended",
    "dlr",
    "dlr_t",
    "eps_now",
    "exact",
    "fgsm",
    "first_success",
    "forward_of",
    "in_sequence",
    "increasing_confidence",
    "judged",
    "loss_surface",
    "loss_used",
    "margin",
    "noise",
    "parse_eps",
    "pgd",
    "preprocessing",
    "share_right",
    "spatial",
    "square",
    "succeeded",
    "trades_loss",
    "wilson",
    "worst_case",
    "zero_gradients",
]
