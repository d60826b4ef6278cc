"""What an option's value must be: of its default's kind, and for some within limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

# What a value must be, by its default's type. A text may be given as a number (precision=16), a fraction as a whole.
KINDS = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: ((str, int, float), "a word"),
}
NULLABLE = ("model.layers", "task.module.severity")
# Of options whose default is null, what another value must be.
NULL_KINDS: dict[str, type] = {
    "data.captions_fa": str,
    "data.date": str,
    "data.length": int,
    "data.masks": str,
    "data.train_items": int,
    "data.train_length": int,
    "data.carry": bool,
    "data.stride": int,
    "data.test_share": float,
    "data.per_class": int,
    "data.positive": str,
    "model.embedding_dropout": float,
    "model.frozen_norms": bool,
    "model.rpn.border": int,
    "model.output_dropout": float,
    "model.output_maps": int,
    "images": str,
    "language": str,
    "source_ckpt": str,
    "task.module.clip": float,
    "task.module.cycle_target": float,
    "task.module.label": int,
    "task.module.language_model": str,
    "task.module.scheduled_sampling": float,
    "task.module.top_k": int,
    "task.module.top_p": float,
    "attack.step": str,
    "task.module.adversarial.step": str,
    "task.module.adversarial.steps": int,
}


def whole(value: Any, least: int = 1) -> bool:
    """Is it a whole number, at least so large? (True and False are none.)"""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def above_0_or_null(value: Any) -> bool:
    return value is None or (number(value) and 0 < value < math.inf)


def part(value: Any) -> bool:
    """Is it a number of batches, or a fraction?"""
    return whole(value) or (isinstance(value, float) and 0 < value <= 1)


def is_seed(value: Any) -> bool:
    return whole(value, 0) and value < 2**32


SEED = f"a whole number from 0 to {2**32 - 1}"
# What Lightning's settings, and some of ours, must be: of several kinds, or within limits.
BATCHES = "a number of batches, 1 or more, or a fraction above 0.0 up to 1.0"
LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (is_seed, SEED),
    "data.seed": (is_seed, SEED),
    "task.module.seed": (is_seed, SEED),
    "average": (lambda value: number(value) and 0 <= value < 1, "a number from 0 up to, not including, 1"),
    "on_device": (lambda value: value in ("auto", True, False), "true, false or auto"),
    "checkpoint": (lambda value: value in ("best", "last"), "best or last"),
    "budget.minutes": (above_0_or_null, "a number above 0, or null"),
    "patience": (lambda value: value is None or whole(value, 0), "a whole number, 0 or more, or null"),
    "model.layers": (
        lambda value: value is None or OmegaConf.is_list(value) or (whole(value, 0) and value <= 1000),
        "a whole number, up to 1000",
    ),
    "trainer.max_epochs": (whole, "a whole number above 0"),
    "trainer.max_steps": (lambda value: whole(value) or value == -1, "a whole number above 0, or -1 for no limit"),
    "trainer.limit_train_batches": (part, BATCHES),
    "trainer.limit_val_batches": (lambda value: part(value) or value == 0, f"{BATCHES}; 0: never validate"),
    "trainer.limit_test_batches": (part, BATCHES),
    "trainer.val_check_interval": (part, BATCHES),
    "trainer.check_val_every_n_epoch": (whole, "a whole number above 0"),
    "trainer.log_every_n_steps": (whole, "a whole number above 0"),
    "trainer.num_sanity_val_steps": (lambda value: whole(value, -1), "a whole number, -1 for all of them, or 0"),
    "trainer.gradient_clip_val": (above_0_or_null, "a number above 0, or null"),
    "task.module.clip": (above_0_or_null, "a number above 0, or null"),
    "trainer.deterministic": (lambda value: value in (True, False, "warn"), "true, false or warn"),
    "trainer.devices": (
        lambda value: whole(value) or value in (-1, "auto") or (OmegaConf.is_list(value) and len(value) > 0),
        "a whole number above 0, auto, or a list of GPUs' numbers",
    ),
}
OPTIONAL = ("data", "model", "task.module")  # groups of which not every choice has every option of LIMITS
